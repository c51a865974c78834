//! Everything in one process: control plane, worker and store.
//!
//! The worker speaks to the control plane over gRPC, as it would from another machine: there is one way for mail to come
//! in, and `up` uses it.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postroom_control_plane as control_plane;
use postroom_control_plane::access::context as installed;
use postroom_control_plane::access::role::Role;
use postroom_control_plane::access::tls::Choice;
use postroom_control_plane::access::token::{self, Tokens};
use postroom_control_plane::access::vault::{KeySource, NoSource};
use postroom_control_plane::config::settings::host;
use postroom_control_plane::config::{BlobsChoice, StoreChoice};
use postroom_control_plane::folder;
use postroom_proto::lease::LeaseTerms;
use postroom_proto::log;
use postroom_proto::observe::Listen;
use postroom_proto::settings::form;
use postroom_proto::trace::{self, Traces, choice};
use postroom_worker as worker;
use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};

use crate::blobs_choice::BlobsArgs;
use crate::client::Client;
use crate::context::{self, Context};
use crate::error::{Error, Kind, chain};
use crate::store_choice::StoreArgs;
use crate::streams::Streams;
use crate::{Environment, model_file};

/// Name of the worker in this process.
const WORKER: &str = "local";
/// Mailboxes of it that begin at once. The ramp of a worker spares servers a whole fleet that starts; one machine is paced
/// enough by how many may connect at a time to one host or tenant.
const BURST: u32 = 200;
/// How long it keeps a connection to an SMTP server for the next mail: servers end idle ones after a minute or more.
const KEEP_CONNECTIONS: Duration = Duration::from_secs(50);

/// `up`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  postroom up\n  postroom up --listen 0.0.0.0:7430 --tls-name postroom.example.org\n  postroom up --data /var/lib/postroom -f model.yaml\n  postroom up --store etcds://postroom@etcd1:2379,etcd2:2379 --store-password-file etcd.password"
)]
pub struct Args {
    /// Address to serve on. Beyond this machine it is served over TLS, with a certificate made here: clients need a copy
    /// of ca.pem from the data directory.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7430")]
    pub listen: SocketAddr,
    /// Further name or address by which this machine is called, for the certificate; may be repeated. Only with
    /// --listen beyond this machine.
    #[arg(long = "tls-name", value_name = "NAME", value_parser = host)]
    pub tls_names: Vec<String>,
    /// Address to serve metrics and health on, over HTTP; or off [default: 127.0.0.1:7431, unless it is in use].
    #[arg(long, value_name = "ADDR", value_parser = observe)]
    pub observe: Option<Listen>,
    /// Model file to apply at start.
    #[arg(short = 'f', long = "file", value_name = "MODEL")]
    pub model: Option<PathBuf>,
    /// Where the key of the stored secrets is: file:PATH, env:VARIABLE, or credential:NAME (systemd's
    /// LoadCredential) [env: POSTROOM_SECRET_KEY] [default: file:secret.key in the data directory].
    #[arg(long, value_name = "SOURCE")]
    pub secret_key: Option<String>,
    /// Collector that takes traces over OTLP/gRPC, such as http://127.0.0.1:4317.
    #[arg(long, value_name = "URL", value_parser = choice::endpoint)]
    pub trace_endpoint: Option<String>,
    /// Which part of all contacts and calls is traced, from 0 to 1.
    #[arg(long, value_name = "SHARE", default_value = choice::SHARE, value_parser = form::share)]
    pub trace_share: f64,
    /// Where definitions and leases are kept.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Where large messages are kept.
    #[command(flatten)]
    pub blobs: BlobsArgs,
}

impl Args {
    /// Where metrics and health are served.
    pub fn observed(&self) -> Listen {
        self.observe.unwrap_or(Listen::Perhaps(SocketAddr::from(([127, 0, 0, 1], 7431))))
    }

    /// Where traces go. `None`: nowhere.
    pub fn traced(&self) -> Option<trace::Choice> {
        let (share, ca_file) = (self.trace_share, None);
        self.trace_endpoint.clone().map(|endpoint| trace::Choice { endpoint, share, ca_file })
    }
}

fn observe(text: &str) -> Result<Listen, String> {
    Listen::parse(text).map(|address| Listen::of(address, true))
}

/// What `up` is asked to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything is kept. May not exist yet.
    pub data: PathBuf,
    /// Where definitions and leases are kept.
    pub store: StoreChoice,
    /// Where large messages are kept.
    pub blobs: BlobsChoice,
    /// Where the key of the stored secrets is.
    pub secret_key: KeySource,
    /// Address to serve on.
    pub listen: SocketAddr,
    /// Further names by which this machine is called, for the certificate.
    pub tls_names: Vec<String>,
    /// Model file to apply at start.
    pub model: Option<PathBuf>,
    /// Plaintext beyond this machine is allowed.
    pub insecure: bool,
    /// Where metrics and health are served.
    pub observe: Listen,
    /// Where traces go. `None`: nowhere.
    pub traces: Option<trace::Choice>,
}

/// Where the key of the stored secrets is: by flag, else by variable, else a file in the data folder.
pub fn secret_key(flag: Option<String>, data: &Path, environment: Environment<'_>) -> Result<KeySource, Error> {
    let variable = || environment("POSTROOM_SECRET_KEY").map(|text| text.to_string_lossy().into_owned());
    match flag.or_else(variable).filter(|text| !text.is_empty()) {
        None => Ok(KeySource::File(data.join(folder::KEY))),
        Some(text) => text.parse().map_err(|error: NoSource| {
            Error::new(Kind::Usage, format!("the key of the stored secrets: {error}"))
                .help("see --secret-key in `postroom up --help`")
        }),
    }
}

/// Runs until it is told to stop, by SIGINT or SIGTERM.
pub async fn run(options: Options, environment: Environment<'_>, streams: &mut Streams<'_>) -> Result<(), Error> {
    let filter = environment(log::FILTER);
    log::init(filter.as_ref().and_then(|filter| filter.to_str()), log::Format::Text);
    // Ordering: signals are caught before anything runs that would have to be stopped.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    // Ordering: the file first, so that its faults are told before anything is started.
    let model = options.model.as_deref().map(|file| model_file::read_file(file, environment)).transpose()?;
    require_certificate(&options)?;
    let traces = Traces::begin(options.traces.as_ref(), "postroom", WORKER).map_err(|error| {
        Error::new(Kind::Usage, error.to_string()).help("leave --trace-endpoint out to go on without traces")
    })?;
    let installation = Installation::start(&options).await?;
    if let Some(model) = model
        && let Err(error) = installation.apply(model).await
    {
        installation.stop().await;
        return Err(error);
    }
    let _ = writeln!(
        streams.err,
        "postroom is up at {}; see `postroom --data {} mailbox list`",
        installation.context.endpoint,
        options.data.display()
    );
    let failed = loop {
        tokio::select! {
            _ = interrupt.recv() => break false,
            _ = terminate.recv() => break false,
            () = installation.control_plane.failed() => break true,
            () = installation.worker.failed() => break true,
            _ = hangup.recv() => installation.control_plane.reload(),
        }
    };
    tracing::info!("stopping");
    installation.stop().await;
    traces.end().await;
    tracing::info!("stopped");
    if failed {
        return Err(Error::new(Kind::Internal, "a part of the installation has ended by itself")
            .help("the log above says why; start it again, nothing is lost"));
    }
    Ok(())
}

/// A running installation.
#[derive(Debug)]
pub struct Installation {
    control_plane: control_plane::app::App,
    worker: worker::app::App,
    insecure: bool,
    /// How to reach it.
    pub context: Context,
}

impl Installation {
    /// Starts a control plane and a worker, and describes the installation in `context.toml`.
    pub async fn start(options: &Options) -> Result<Self, Error> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&options.data).map_err(|source| {
            Error::new(Kind::Usage, format!("the data folder {} cannot be made: {source}", options.data.display()))
                .help("name another by --data DIR")
        })?;
        let admin = admin_token(&options.data)?;
        let own = token::mint().map_err(|error| no_randomness(&error))?;
        let mut tokens = Tokens::default();
        tokens.grant(&admin, Role::Admin);
        tokens.grant(&own, Role::Worker(None));
        let control_plane = control_plane::app::App::start(control_plane::config::Config {
            insecure: options.insecure,
            tls: tls(options),
            store: options.store.clone(),
            blobs: options.blobs.clone(),
            secret_key: options.secret_key.clone(),
            terms: terms(&options.store),
            observe: options.observe,
            ..control_plane::config::Config::new(options.data.clone(), options.listen, tokens)
        })
        .await
        .map_err(not_started)?;
        let endpoint = control_plane.endpoint().to_owned();
        let ca_file = control_plane.ca_file().map(Path::to_path_buf);
        let context = Context { endpoint: endpoint.clone(), ca_file: ca_file.clone(), token: admin };
        let started = context
            .write(&options.data)
            .map_err(|source| Error::new(Kind::Usage, format!("cannot write to {}: {source}", options.data.display())));
        let started = started.and_then(|()| {
            let mut config = worker::config::Config::new(&endpoint, own, WORKER);
            config.ca_file = ca_file;
            // No other worker's connections come on top of its own.
            config.sending.keep = KEEP_CONNECTIONS;
            config.reading.start.burst = BURST;
            worker::app::App::start(config).map_err(|error| Error::new(Kind::Internal, error.to_string()))
        });
        match started {
            Ok(worker) => Ok(Self { control_plane, worker, insecure: options.insecure, context }),
            Err(error) => {
                control_plane.stop().await;
                Err(error)
            }
        }
    }

    /// Applies a model.
    pub async fn apply(&self, model: postroom_proto::v1::Model) -> Result<(), Error> {
        Client::new(&self.context, self.insecure)?.apply_model(model).await?;
        Ok(())
    }

    /// Stops: first the worker, so that it lets go of its mailboxes and says goodbye, then the control plane.
    pub async fn stop(self) {
        self.worker.stop().await;
        self.control_plane.stop().await;
    }
}

/// Beyond this machine it is served over TLS, unless plaintext was asked for.
fn tls(options: &Options) -> Choice {
    if options.listen.ip().is_loopback() || options.insecure {
        return Choice::Plain;
    }
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(Into::into).into();
    names.extend((!options.listen.ip().is_unspecified()).then(|| options.listen.ip().to_string()));
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_lowercase();
    let fits = |name: &&str| url::Host::parse(name).is_ok_and(|host| matches!(host, url::Host::Domain(_)));
    names.extend(Some(host.as_str()).filter(fits).map(Into::into));
    for name in &options.tls_names {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    Choice::Own { names }
}

/// Names are for a certificate, and plaintext has none.
fn require_certificate(options: &Options) -> Result<(), Error> {
    if options.tls_names.is_empty() || tls(options).is_tls() {
        return Ok(());
    }
    let why = if options.insecure { "--insecure asks for plaintext" } else { "on this machine alone it is plaintext" };
    Err(Error::new(
        Kind::Usage,
        format!("--tls-name names a certificate, but {} is served without one: {why}", options.listen),
    )
    .help("leave --tls-name out, or serve over TLS: --listen 0.0.0.0:7430 without --insecure"))
}

/// Terms of a worker that lives and dies with its leader: heartbeats cost nothing here, and short ones make a mailbox
/// that was just defined be read at once. A store elsewhere may be slow to confirm the leader.
fn terms(store: &StoreChoice) -> LeaseTerms {
    let leader_ttl = Duration::from_secs(if *store == StoreChoice::Sqlite { 1 } else { 3 });
    LeaseTerms { heartbeat: Duration::from_millis(500), leader_ttl, ..LeaseTerms::default() }
}

/// The token of this installation: the one that stands in its context, or a new one.
fn admin_token(data: &Path) -> Result<SecretString, Error> {
    installed::admin_token(data).map_err(|error| match error {
        installed::Error::Random(error) => no_randomness(&error),
        error => context::explained(&error)
            .help(format!("move {} away: a new one with a new admin token is made", context::FILE_NAME)),
    })
}

fn no_randomness(error: &impl std::fmt::Display) -> Error {
    Error::new(Kind::Internal, format!("the system gives no random numbers: {error}"))
}

fn not_started(error: control_plane::app::StartError) -> Error {
    use control_plane::app::StartError;
    let kind = match &error {
        StartError::Config(_)
        | StartError::Folder(_)
        | StartError::Listen { .. }
        | StartError::Tls(_)
        | StartError::Observe(_) => Kind::Usage,
        _ => Kind::Internal,
    };
    Error::new(kind, chain(&error))
}
