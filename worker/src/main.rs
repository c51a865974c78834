//! The `postroom-worker` command: settings in, a running worker, and a clean stop.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::{env, fs, io};

use postroom_proto::log;
use postroom_proto::settings::{Refusal, Settings, Sources, refusal};
use postroom_proto::trace::Traces;
use postroom_worker::app::App;
use postroom_worker::config::Identity;
use postroom_worker::config::settings::{self, Launch, PROGRAM};
use tokio::signal::unix::{Signal, SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    // Ordering: before anything that may speak TLS; rustls has no provider of its own here. A second installation is
    // refused, which is harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Box::pin(run()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            // Nothing is left to tell it to when standard error is closed.
            let _ = io::stderr().write_all(refusal.render().as_bytes());
            ExitCode::from(refusal.exit_code)
        }
    }
}

async fn run() -> Result<(), Refusal> {
    let typed = PROGRAM.typed(&PROGRAM.command().get_matches(), |name| env::var(name).ok());
    let read = |file: &Path| fs::read_to_string(file).map_err(|e| Refusal::unreadable("the settings file", file, &e));
    let text = typed.file.as_deref().map(read).transpose()?;
    let variables =
        env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let sources =
        Sources { typed: &typed, variables: variables.collect(), file: typed.file.as_deref().zip(text.as_deref()) };
    let mut gathered = Settings::gather(PROGRAM, &sources);
    let launch = settings::read(&mut gathered, &host_name(), |path| fs::read_to_string(path))?;
    if typed.check {
        return io::stdout().write_all(gathered.show().as_bytes()).map_err(|error| {
            Refusal::new(refusal::INTERNAL, format!("cannot write: {error}"), "see where standard output goes")
        });
    }
    log::init(Some(&launch.log_filter), launch.log_format);
    work(launch).await
}

/// Works until it is told to stop, by SIGINT or SIGTERM: then it lets go of its mailboxes and says goodbye. A second
/// signal ends the process at once.
async fn work(launch: Launch) -> Result<(), Refusal> {
    // Ordering: signals are caught before anything runs that would have to be stopped.
    let mut signals = Signals::catch()?;
    let by_token = matches!(launch.config.identity, Identity::Token(_));
    let traces = Traces::begin(launch.traces.as_ref(), PROGRAM.name, &launch.config.name)?;
    let app = App::start(launch.config)
        .map_err(|error| Refusal::new(refusal::INVALID, error.to_string(), "see --check-config for what holds"))?;
    let failed = tokio::select! {
        () = signals.next() => false,
        () = app.failed() => true,
    };
    tracing::info!("stopping");
    tokio::spawn(async move {
        signals.next().await;
        std::process::exit(refusal::INTERRUPTED.into());
    });
    let refused = app.refused().map(str::to_owned);
    app.stop().await;
    traces.end().await;
    tracing::info!("stopped");
    if let Some(why) = refused {
        let help = if by_token {
            "copy worker.token from the control plane's data folder into the file of the setting token-file"
        } else {
            "a certificate names one worker: see that it is the setting name, and enrol the worker anew if it has ended or \
             was revoked"
        };
        return Err(Refusal::new(refusal::REFUSED, format!("the control plane refuses this worker: {why}"), help));
    }
    if failed {
        let help = "the log above says why; start it again, nothing is lost";
        return Err(Refusal::new(refusal::INTERNAL, "a part of the worker has ended by itself", help));
    }
    Ok(())
}

/// The host's name, from which that of the worker is made.
fn host_name() -> String {
    let read = |path| fs::read_to_string(path);
    read("/proc/sys/kernel/hostname").or_else(|_| read("/etc/hostname")).unwrap_or_default()
}

/// What tells a process to stop.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn catch() -> Result<Self, Refusal> {
        let catch = |kind| {
            signal(kind).map_err(|error| {
                Refusal::new(refusal::INTERNAL, format!("signals cannot be caught: {error}"), "see the system's limits")
            })
        };
        Ok(Self { interrupt: catch(SignalKind::interrupt())?, terminate: catch(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
