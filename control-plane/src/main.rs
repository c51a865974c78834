//! The `postroom-control-plane` command: settings in, a running control plane, and a clean stop.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::{env, fs, io};

use postroom_control_plane::access::context::{self, Context};
use postroom_control_plane::access::role::Role;
use postroom_control_plane::app::App;
use postroom_control_plane::config::settings::{self, Launch, PROGRAM};
use postroom_control_plane::config::{BlobsChoice, StoreChoice};
use postroom_control_plane::store::choice::password_in;
use postroom_proto::log;
use postroom_proto::settings::{Refusal, Settings, Sources, refusal};
use postroom_proto::trace::Traces;
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
    let launch = settings::read(&mut gathered, &host_name())?;
    if typed.check {
        return io::stdout().write_all(gathered.show().as_bytes()).map_err(|error| {
            Refusal::new(refusal::INTERNAL, format!("cannot write: {error}"), "see where standard output goes")
        });
    }
    log::init(Some(&launch.log_filter), launch.log_format);
    serve(launch).await
}

/// Serves until it is told to stop, by SIGINT or SIGTERM. SIGHUP has certificates read again. A second signal ends the process at once.
async fn serve(launch: Launch) -> Result<(), Refusal> {
    let Launch { mut config, worker_token_file, store_password_file, blobs_secret_key_file, traces, .. } = launch;
    // Ordering: signals are caught before anything runs that would have to be stopped.
    let (mut signals, mut hangup) = Signals::catch()?;
    fs::create_dir_all(&config.data).map_err(|error| {
        let message = format!("the data folder {} cannot be made: {error}", config.data.display());
        Refusal::new(refusal::USAGE, message, "make it, or name another in the setting data")
    })?;
    if let (StoreChoice::Etcd(etcd), Some(file)) = (&mut config.store, store_password_file) {
        etcd.password = Some(password_in(&file).map_err(|why| {
            let message = format!("the password of the store in {}: {why}", file.display());
            Refusal::new(refusal::USAGE, message, "write it into the file as its only line")
        })?);
    }
    if let (BlobsChoice::S3(s3), Some(file)) = (&mut config.blobs, blobs_secret_key_file) {
        s3.secret_key = password_in(&file).map_err(|why| {
            let message = format!("the secret key of the bucket in {}: {why}", file.display());
            Refusal::new(refusal::USAGE, message, "write it into the file as its only line")
        })?;
    }
    let admin = context::admin_token(&config.data).map_err(|error| no_token(&error))?;
    config.tokens.grant(&admin, Role::Admin);
    config.tokens.grant(&context::token_in(&worker_token_file).map_err(|error| no_token(&error))?, Role::Worker(None));
    let data = config.data.clone();
    let traces = Traces::begin(traces.as_ref(), PROGRAM.name, &config.replica)?;
    let app = App::start(config).await?;
    let endpoint = app.endpoint().to_owned();
    let context = Context { endpoint: endpoint.clone(), ca_file: app.ca_file().map(Into::into), token: admin };
    if let Err(error) = context.write(&data) {
        app.stop().await;
        let message = format!("cannot write {}: {error}", data.join(context::FILE_NAME).display());
        return Err(Refusal::new(refusal::USAGE, message, "see who owns the data folder"));
    }
    tracing::info!(
        %endpoint,
        admin = %data.join(context::FILE_NAME).display(),
        workers = %worker_token_file.display(),
        "the control plane is up"
    );
    let failed = loop {
        tokio::select! {
            () = signals.next() => break false,
            () = app.failed() => break true,
            _ = hangup.recv() => app.reload(),
        }
    };
    tracing::info!("stopping");
    tokio::spawn(async move {
        signals.next().await;
        std::process::exit(refusal::INTERRUPTED.into());
    });
    app.stop().await;
    traces.end().await;
    tracing::info!("stopped");
    if failed {
        let help = "the log above says why; start it again, nothing is lost";
        return Err(Refusal::new(refusal::INTERNAL, "a part of the control plane has ended by itself", help));
    }
    Ok(())
}

fn no_token(error: &context::Error) -> Refusal {
    let help = "see who owns the file; one that is moved away is made anew, with another token";
    Refusal::new(refusal::USAGE, error.to_string(), help)
}

/// The host's name, from which that of the replica is made.
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
    /// Beside them the one that does not stop it: files are to be read again.
    fn catch() -> Result<(Self, Signal), Refusal> {
        let catch = |kind| {
            signal(kind).map_err(|error| {
                Refusal::new(refusal::INTERNAL, format!("signals cannot be caught: {error}"), "see the system's limits")
            })
        };
        let signals = Self { interrupt: catch(SignalKind::interrupt())?, terminate: catch(SignalKind::terminate())? };
        Ok((signals, catch(SignalKind::hangup())?))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
