//! What an operator may set of a control plane that runs by itself.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use postroom_proto::id::name_of;
use postroom_proto::lease::LeaseTerms;
use postroom_proto::limits::LARGEST_MESSAGE_BYTES;
use postroom_proto::log;
use postroom_proto::observe::Listen;
use postroom_proto::settings::{Program, Refusal, Settings, form};
use postroom_proto::trace;
use secrecy::SecretString;

use super::{BlobsChoice, Config, KeySource, StoreChoice};
use crate::access::gate::Limits;
use crate::access::tls::Choice;
use crate::access::token::Tokens;
use crate::blob::choice::{REGION, endpoint};
use crate::outbox::Terms;
use crate::outbox::draft::MOST_RECIPIENTS;
use crate::store::etcd::SHORTEST_TENURE;
use crate::telemetry::look;

mod table;

/// What a worker's certificate may last: long enough to be renewed while a control plane is mended.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(600);
const LONGEST_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);

/// The `postroom-control-plane` command.
pub const PROGRAM: Program = Program {
    name: "postroom-control-plane",
    about: "Keeps definitions, hands out mailbox leases to workers, holds the ledger and allocates contacts",
    prefix: "POSTROOM_CONTROL_PLANE_",
    settings: table::SETTINGS,
    examples: "Examples:\n  postroom-control-plane --config /etc/postroom/control-plane.toml\n  \
               postroom-control-plane --data /var/lib/postroom --check-config",
};

/// A control plane as it is set, but for its tokens.
#[derive(Debug)]
pub struct Launch {
    /// Everything but the tokens.
    pub config: Config,
    /// Where the workers' token is, or will be.
    pub worker_token_file: PathBuf,
    /// Where the password of the etcd user is; to be read into the store's settings before the start.
    pub store_password_file: Option<PathBuf>,
    /// Where the secret of the bucket's access key is; to be read into the settings of the bucket before the start.
    pub blobs_secret_key_file: Option<PathBuf>,
    /// Where traces go. `None`: nowhere.
    pub traces: Option<trace::Choice>,
    /// What is logged.
    pub log_filter: String,
    /// How it is logged.
    pub log_format: log::Format,
}

/// What the settings make, or every fault of them.
pub fn read(settings: &mut Settings, host: &str) -> Result<Launch, Refusal> {
    let data = settings.path("data").unwrap_or_default();
    let secret_key = settings.optional("secret-key", key_source);
    let listen = settings.optional("listen", form::address);
    let insecure = settings.value("insecure", form::switch);
    let endpoint = settings.optional("endpoint", url);
    let tls = tls(settings);
    let certificate_lifetime = settings.optional("tls.worker-certificate-ttl", lifetime);
    let limits = settings.optional("limits.calls-per-second", form::count).map(Limits::per_second);
    let replica = settings.optional("replica", form::name).unwrap_or_else(|| name_of(host));
    let worker_token_file = settings.path("worker-token-file").unwrap_or_else(|| data.join("worker.token"));
    let (store, store_password_file) = store(settings);
    let (blobs, blobs_secret_key_file) = blobs(settings);
    let terms = terms(settings);
    if matches!(store, StoreChoice::Etcd(_)) && terms.leader_ttl < SHORTEST_TENURE {
        // Or the loss of a leader would take longer than the terms were checked for.
        let text = format!("etcd keeps the key of a leader that is gone for {SHORTEST_TENURE:?}; write that or more");
        settings.fault("lease.leader-ttl", text);
    }
    let outbox = outbox(settings);
    let observe = settings.value("observe.listen", Listen::parse);
    // The default address is not insisted on: another control plane of this machine may have it.
    let observe = Listen::of(observe, !settings.unsaid().contains(&"observe.listen"));
    let usual = look::Terms::default();
    let telemetry = look::Terms {
        interval: settings.optional("observe.interval", form::some_time).unwrap_or(usual.interval),
        mailboxes: settings.optional("observe.mailboxes", form::count).map_or(usual.mailboxes, |most| most as usize),
    };
    let traces = trace::choice::read(settings);
    let audit_kept = settings.optional("audit.keep", form::some_time).unwrap_or(super::AUDIT_KEPT);
    let log_filter = settings.value("log.filter", log::filter);
    let log_format = settings.value("log.format", form::choice(log::FORMATS));
    let exposed = |listen: &SocketAddr| !listen.ip().is_loopback() && !insecure && tls == Choice::Plain;
    if let Some(listen) = listen.filter(exposed) {
        settings.fault("listen", super::Invalid::Exposed(listen).to_string());
    }
    settings.end()?;
    let listen = listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
    let usual = Config::new(data, listen, Tokens::default());
    let config = Config {
        store,
        blobs,
        tls,
        endpoint,
        certificate_lifetime: certificate_lifetime.unwrap_or(usual.certificate_lifetime),
        limits: limits.unwrap_or_default(),
        insecure,
        replica,
        terms,
        outbox,
        observe,
        telemetry,
        audit_kept,
        alone: false,
        ..usual
    };
    let config = Config { secret_key: secret_key.unwrap_or(config.secret_key), ..config };
    Ok(Launch { config, worker_token_file, store_password_file, blobs_secret_key_file, traces, log_filter, log_format })
}

/// What the port speaks.
fn tls(settings: &mut Settings) -> Choice {
    let pair = (settings.path("tls.certificate-file"), settings.path("tls.key-file"));
    let client_ca = settings.path("tls.client-ca-file");
    let ca = settings.path("tls.ca-file");
    let own = settings.optional("tls.own-names", form::list(host));
    match (pair, own) {
        ((Some(certificate), Some(key)), None) => Choice::Files { certificate, key, client_ca, ca },
        ((None, None), Some(names)) => {
            if client_ca.is_some() || ca.is_some() {
                let text = "the installation's own CA is used for servers and workers; leave tls.own-names or the CA \
                            files out";
                settings.fault("tls.own-names", text);
            }
            Choice::Own { names }
        }
        ((None, None), None) => {
            if client_ca.is_some() {
                let text = "clients show certificates only over TLS; name tls.certificate-file and tls.key-file too";
                settings.fault("tls.client-ca-file", text);
            }
            if ca.is_some() {
                let text = "there is no server's certificate to trust; name tls.certificate-file and tls.key-file too";
                settings.fault("tls.ca-file", text);
            }
            Choice::Plain
        }
        ((Some(_), None), _) => {
            settings.fault("tls.key-file", "is missing: a certificate is of no use without its key");
            Choice::Plain
        }
        ((None, Some(_)), _) => {
            settings.fault("tls.certificate-file", "is missing: the key is that of no certificate");
            Choice::Plain
        }
        ((Some(_), Some(_)), Some(_)) => {
            settings.fault("tls.own-names", "makes a certificate, but one is named; leave one of both out");
            Choice::Plain
        }
    }
}

/// A host name or an IP address.
pub fn host(text: &str) -> Result<String, String> {
    match url::Host::parse(text.trim_start_matches('[').trim_end_matches(']')) {
        _ if text.parse::<IpAddr>().is_ok() => Ok(text.into()),
        Ok(url::Host::Domain(name)) if name.is_ascii() => Ok(name),
        _ => Err(format!("{text:?} is neither a host name nor an address; write one such as mail.example.org")),
    }
}

/// `http://host:port` or `https://host:port`.
fn url(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} is no URL of a control plane; write https://host:port");
    let parsed = url::Url::parse(text).map_err(|_| wrong())?;
    let fits = matches!(parsed.scheme(), "http" | "https") && parsed.host().is_some() && parsed.path() == "/";
    if fits { Ok(text.trim_end_matches('/').into()) } else { Err(wrong()) }
}

/// How long a worker's certificate holds.
fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = form::some_time(text)?;
    if (SHORTEST_LIFETIME..=LONGEST_LIFETIME).contains(&lifetime) {
        return Ok(lifetime);
    }
    Err("is not between 10m and 87600h; a worker renews it when two thirds of it are over".into())
}

fn key_source(text: &str) -> Result<KeySource, String> {
    match text.parse::<KeySource>().map_err(|error| error.to_string())? {
        KeySource::File(path) if path.is_relative() => {
            Err(format!("{} is no absolute path; write one", path.display()))
        }
        source => Ok(source),
    }
}

/// The store but for its password, and the file of that.
fn store(settings: &mut Settings) -> (StoreChoice, Option<PathBuf>) {
    let read = |text: &str| text.parse::<StoreChoice>().map_err(|error| error.to_string());
    let mut store = settings.value("store", read);
    let password = settings.path("store-password-file");
    let ca_file = settings.path("store-ca-file");
    let pair = (settings.path("store-certificate-file"), settings.path("store-key-file"));
    let StoreChoice::Etcd(etcd) = &mut store else { return (store, None) };
    etcd.ca_file = ca_file;
    etcd.client_certificate = match pair {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => {
            settings.fault("store-key-file", "is missing: a client certificate is of no use without its key");
            None
        }
        (None, Some(_)) => {
            settings.fault("store-certificate-file", "is missing: the key is that of no client certificate");
            None
        }
    };
    // What is in the file is looked at when it is used; whether there has to be one is known already.
    etcd.password = password.as_ref().map(|_| SecretString::default());
    if let Err(error) = store.check() {
        settings.fault("store", error.to_string());
    }
    (store, password)
}

/// Where large bodies are, but for the secret, and the file of that.
fn blobs(settings: &mut Settings) -> (BlobsChoice, Option<PathBuf>) {
    let mut blobs = settings.value("blobs.url", |text| text.parse::<BlobsChoice>().map_err(|error| error.to_string()));
    let endpoint = settings.optional("blobs.endpoint", |text| endpoint(text).map_err(|error| error.to_string()));
    let region = settings.optional("blobs.region", form::text);
    let access_key = settings.optional("blobs.access-key", form::text);
    let secret = settings.path("blobs.secret-key-file");
    let ca_file = settings.path("blobs.ca-file");
    let insecure = settings.value("blobs.insecure", form::switch);
    let BlobsChoice::S3(s3) = &mut blobs else { return (blobs, None) };
    s3.endpoint = endpoint;
    s3.region = region.unwrap_or_else(|| REGION.to_owned());
    s3.access_key = access_key.unwrap_or_default();
    s3.ca_file = ca_file;
    s3.insecure = insecure;
    if secret.is_some() {
        // What is in the file is looked at when it is used; whether there has to be one is known already.
        s3.secret_key = SecretString::from("in the file");
    }
    if let Err(error) = blobs.check() {
        settings.fault("blobs.url", error.to_string());
    }
    (blobs, secret)
}

fn terms(settings: &mut Settings) -> LeaseTerms {
    let mut time = |name| settings.optional(name, form::some_time);
    let all = (
        time("lease.heartbeat"),
        time("lease.heartbeat-timeout"),
        time("lease.ttl"),
        time("lease.margin"),
        time("lease.leader-ttl"),
    );
    let (Some(heartbeat), Some(heartbeat_timeout), Some(ttl), Some(margin), Some(leader_ttl)) = all else {
        return LeaseTerms::default();
    };
    let terms = LeaseTerms { heartbeat, heartbeat_timeout, ttl, margin, leader_ttl };
    if let Err(error) = terms.check() {
        settings.fault("lease.ttl", error.to_string());
    }
    terms
}

fn outbox(settings: &mut Settings) -> Terms {
    let mut bytes = |name| settings.optional(name, form::bytes);
    let (mail, attachment) = (bytes("outbox.max-mail-bytes"), bytes("outbox.max-attachment-bytes"));
    let mut count = |name| settings.optional(name, form::some);
    let (connections, per_minute) = (count("outbox.connections"), count("outbox.per-minute"));
    let per_day = count("outbox.per-day");
    let (breaker, automatic) = (count("outbox.breaker"), count("outbox.breaker-automatic"));
    let mut time = |name| settings.optional(name, form::some_time);
    let (minute, claim_time) = (time("outbox.minute"), time("outbox.claim-time"));
    let answer_time = time("outbox.answer-time");
    let (look_after, give_up_after) = (time("outbox.look-after"), time("outbox.give-up-after"));
    if mail.is_some_and(|mail| mail > LARGEST_MESSAGE_BYTES) {
        let text = format!("is more than the {LARGEST_MESSAGE_BYTES} bytes that any mail may have; write less");
        settings.fault("outbox.max-mail-bytes", text);
    }
    if per_day.is_some_and(|per_day| (per_day as usize) < MOST_RECIPIENTS) {
        let text = format!("is less than the {MOST_RECIPIENTS} recipients that one mail may have; write that or more");
        settings.fault("outbox.per-day", text);
    }
    let usual = Terms::default();
    Terms {
        max_mail_bytes: mail.unwrap_or(usual.max_mail_bytes),
        max_attachment_bytes: attachment.unwrap_or(usual.max_attachment_bytes),
        connections: connections.unwrap_or(usual.connections),
        per_minute: per_minute.unwrap_or(usual.per_minute),
        minute: minute.unwrap_or(usual.minute),
        per_day: per_day.unwrap_or(usual.per_day),
        claim_time: claim_time.unwrap_or(usual.claim_time),
        answer_time: answer_time.unwrap_or(usual.answer_time),
        look_after: look_after.unwrap_or(usual.look_after),
        give_up_after: give_up_after.unwrap_or(usual.give_up_after),
        breaker: breaker.unwrap_or(usual.breaker),
        breaker_automatic: automatic.unwrap_or(usual.breaker_automatic),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use postroom_proto::settings::{CommandLine, Sources, uncommented};

    use super::*;

    fn settings(file: &str) -> Settings {
        let sources = Sources {
            typed: &CommandLine::default(),
            variables: Vec::new(),
            file: Some((Path::new("/etc/cp.toml"), file)),
        };
        Settings::gather(PROGRAM, &sources)
    }

    fn faults(file: &str) -> Vec<String> {
        let refusal = read(&mut settings(file), "host").unwrap_err();
        refusal.faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_store_is_one_line_and_its_files() {
        let launch = read(&mut settings("data = \"/d\""), "host").unwrap();
        assert_eq!((launch.config.store, launch.store_password_file), (StoreChoice::Sqlite, None));
        let text =
            "data = \"/d\"\nstore = \"etcds://post@a:1,b:2/x\"\nstore-password-file = \"p\"\nstore-ca-file = \"ca\"\n";
        let launch = read(&mut settings(text), "host").unwrap();
        assert_eq!(launch.config.store.to_string(), "etcds://post@a:1,b:2/x");
        assert_eq!(launch.store_password_file.as_deref(), Some(Path::new("/etc/p")));
        assert!(
            matches!(launch.config.store, StoreChoice::Etcd(it) if it.ca_file.as_deref() == Some(Path::new("/etc/ca")))
        );
    }

    #[test]
    fn half_a_store_is_refused_with_what_is_missing() {
        let told = faults("data = \"/d\"\nstore = \"etcds://post@a\"\nstore-certificate-file = \"c.pem\"\n");
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told.iter().any(|it| it.starts_with("store-key-file (default): is missing")), "{told:?}");
        assert!(told.iter().any(|it| it.contains("--store-password-file")), "{told:?}");
        let told = faults("data = \"/d\"\nstore = \"zookeeper://a\"\n");
        assert!(told[0].contains("names no store"), "{told:?}");
    }

    #[test]
    fn a_bucket_is_a_line_and_what_it_needs() {
        let launch = read(&mut settings("data = \"/d\""), "host").unwrap();
        assert_eq!((launch.config.blobs, launch.blobs_secret_key_file), (BlobsChoice::Folder, None));
        let text = "data = \"/d\"\n[blobs]\nurl = \"s3://post/a\"\nendpoint = \"https://minio:9000\"\n\
                    access-key = \"id\"\nsecret-key-file = \"s3.secret\"\n";
        let launch = read(&mut settings(text), "host").unwrap();
        assert_eq!(launch.blobs_secret_key_file.as_deref(), Some(Path::new("/etc/s3.secret")));
        let BlobsChoice::S3(s3) = launch.config.blobs else { panic!("a bucket") };
        assert_eq!((s3.bucket.as_str(), s3.prefix.as_str(), s3.region.as_str()), ("post", "a", REGION));
        let told = faults("data = \"/d\"\n[blobs]\nurl = \"s3://post\"\n");
        assert!(told.len() == 1 && told[0].contains("--blobs-access-key"), "{told:?}");
        let told = faults("data = \"/d\"\n[blobs]\nurl = \"s3://post\"\naccess-key = \"id\"\n");
        assert!(told.len() == 1 && told[0].contains("--blobs-secret-key-file"), "{told:?}");
        let told = faults(&format!("{text}insecure = false\nregion = \"eu-central-1\"\n").replace("https", "http"));
        assert!(told.len() == 1 && told[0].contains("--blobs-insecure"), "{told:?}");
    }

    #[test]
    fn tls_is_a_certificate_with_its_key_or_one_of_its_own() {
        let data = "data = \"/d\"\nlisten = \"0.0.0.0:7430\"\n";
        let files = "[tls]\ncertificate-file = \"s.pem\"\nkey-file = \"s.key\"\nclient-ca-file = \"ca.pem\"\n";
        let launch = read(&mut settings(&format!("{data}{files}")), "host").unwrap();
        let wanted = Choice::Files {
            certificate: "/etc/s.pem".into(),
            key: "/etc/s.key".into(),
            client_ca: Some("/etc/ca.pem".into()),
            ca: None,
        };
        assert_eq!(launch.config.tls, wanted);
        let own = format!("{data}[tls]\nown-names = [\"cp.example.org\", \"192.0.2.1\", \"::1\"]\n");
        let names = ["cp.example.org", "192.0.2.1", "::1"].map(Into::into).into();
        assert_eq!(read(&mut settings(&own), "host").unwrap().config.tls, Choice::Own { names });

        let told = faults(&format!("{data}[tls]\ncertificate-file = \"s.pem\"\n"));
        assert!(told[0].starts_with("tls.key-file (default): is missing"), "{told:?}");
        assert!(told.iter().any(|it| it.contains("--insecure")), "plaintext is not what was meant: {told:?}");
        let told = faults(&format!("{data}{files}own-names = [\"a b\"]\nworker-certificate-ttl = \"1s\"\n"));
        assert!(told.iter().any(|it| it.contains("\"a b\" is neither a host name nor an address")), "{told:?}");
        assert!(told.iter().any(|it| it.starts_with("tls.worker-certificate-ttl")), "{told:?}");
        let told = faults("data = \"/d\"\nendpoint = \"cp:1\"\n[tls]\nclient-ca-file = \"c\"\nca-file = \"c\"\n");
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told.iter().any(|it| it.starts_with("tls.ca-file (/etc/cp.toml): there is no server's")), "{told:?}");
    }

    #[test]
    fn a_leader_on_etcd_is_not_replaced_sooner_than_its_key_goes() {
        let lease = "[lease]\nleader-ttl = \"2s\"\n";
        let told = faults(&format!("data = \"/d\"\nstore = \"etcd://a:1\"\n{lease}"));
        let wanted =
            "lease.leader-ttl (/etc/cp.toml): etcd keeps the key of a leader that is gone for 5s; write that or more";
        assert_eq!(told, [wanted]);
        read(&mut settings(&format!("data = \"/d\"\n{lease}")), "host").unwrap();
    }

    #[test]
    fn a_day_takes_the_largest_mail() {
        let told = faults("data = \"/d\"\n[outbox]\nper-day = 499\n");
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("outbox.per-day (/etc/cp.toml): is less than the 500 recipients"), "{told:?}");
        let launch = read(&mut settings("data = \"/d\"\n[outbox]\nper-day = 500\nanswer-time = \"9s\"\n"), "host");
        let terms = launch.unwrap().config.outbox;
        assert_eq!((terms.per_day, terms.time_to_end(1024 * 1024).as_secs()), (500, 13));
    }

    #[test]
    fn the_defaults_are_those_of_the_code() {
        let launch = read(&mut settings("data = \"/d\""), "Mail-1.example.org").unwrap();
        assert_eq!(launch.config.terms, LeaseTerms::default());
        assert_eq!(launch.config.outbox, Terms::default());
        let usual = Config::new("/d".into(), launch.config.listen, Tokens::default());
        assert_eq!(launch.config.limits, usual.limits);
        assert_eq!(launch.config.certificate_lifetime, usual.certificate_lifetime);
        assert_eq!(launch.config.telemetry, look::Terms::default());
        assert_eq!(launch.config.observe, Listen::Perhaps(([127, 0, 0, 1], 7431).into()));
        assert_eq!(launch.config.replica, "mail-1-example-org");
        assert_eq!(launch.worker_token_file, Path::new("/d/worker.token"));
        assert!(!launch.config.alone, "its workers live on while it restarts");
        launch.config.check().unwrap();
    }

    #[test]
    fn faults_that_show_only_together_are_told_with_the_others() {
        let told = faults("listen = \"0.0.0.0:7430\"\n[lease]\nttl = \"3s\"\n[log]\nformat = \"xml\"\n");
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(told[0].starts_with("data: is missing"), "{told:?}");
        assert!(told.iter().any(|it| it.starts_with("log.format (/etc/cp.toml): ")), "{told:?}");
        assert!(told.iter().any(|it| it.starts_with("lease.ttl (/etc/cp.toml): ttl - margin is 2s")), "{told:?}");
        assert!(
            told.iter().any(|it| it.starts_with("listen (/etc/cp.toml): ") && it.contains("--insecure")),
            "{told:?}"
        );
    }

    #[test]
    fn the_commented_example_has_every_setting_and_starts() {
        let example = include_str!("../../../deploy/config/control-plane.toml");
        read(&mut settings(example), "host").unwrap();
        let whole = settings(&uncommented(example));
        assert_eq!(whole.unsaid(), [""; 0], "the example does not mention them");
        // A certificate comes by file or is made here, not both.
        let without = |left_out: &[&str]| {
            let whole = uncommented(example);
            let kept = whole.lines().filter(|line| !left_out.iter().any(|key| line.starts_with(key)));
            kept.collect::<Vec<_>>().join("\n")
        };
        read(&mut settings(&without(&["own-names"])), "host").unwrap();
        read(&mut settings(&without(&["certificate-file", "key-file", "ca-file", "client-ca-file"])), "host").unwrap();
    }
}
