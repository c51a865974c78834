//! The `postroom` command.

use std::io;
use std::process::ExitCode;

use postroom_cli::streams::Streams;

#[tokio::main]
async fn main() -> ExitCode {
    // Ordering: before anything that may speak TLS; rustls has no provider of its own here. A second installation is
    // refused, which is harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let environment = |name: &str| std::env::var_os(name);
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let code = postroom_cli::run(std::env::args_os(), &environment, Streams::of_process(&mut out, &mut err)).await;
    ExitCode::from(code)
}
