//! What an operator may set of a worker that runs by itself.

use std::io;
use std::path::Path;

use http::Uri;
use postroom_proto::id::name_of;
use postroom_proto::log;
use postroom_proto::observe::Listen;
use postroom_proto::settings::{Default, Program, Refusal, Setting, Settings, form};
use postroom_proto::trace::{self, choice};
use postroom_proto::v1::WorkerRole;
use secrecy::SecretString;

use super::{Config, Identity, Reading, Sending, Start};

/// The `postroom-worker` command.
pub const PROGRAM: Program = Program {
    name: "postroom-worker",
    about: "Reads the mailboxes that the control plane leases to it, and reports their messages as contacts",
    prefix: "POSTROOM_WORKER_",
    settings: SETTINGS,
    examples: "Examples:\n  postroom-worker --config /etc/postroom/worker.toml\n  \
               postroom-worker --control-plane http://127.0.0.1:7430 --token-file worker.token --name mail-1",
};

const SETTINGS: &[Setting] = &[
    Setting {
        name: "name",
        value: "NAME",
        default: Default::Nothing("made of the name of the host"),
        help: "Stable name: mailboxes stay with it over restarts; of two workers of one name the newer wins",
    },
    Setting {
        name: "control-plane",
        value: "URL,…",
        default: Default::Required,
        help: "Where the control plane is; of several the next is tried when one cannot be reached",
    },
    Setting {
        name: "token-file",
        value: "FILE",
        default: Default::Nothing("a certificate says who it is"),
        help: "Holds a token of the role worker: its own, or a copy of worker.token in the data folder of the control plane",
    },
    Setting {
        name: "insecure",
        value: "",
        default: Default::Is("false"),
        help: "Call a control plane beyond this machine in plaintext, where something else protects the connection",
    },
    Setting {
        name: "pool",
        value: "NAME",
        default: Default::Is("default"),
        help: "Reads the queues of the instances that name this pool",
    },
    Setting {
        name: "role",
        value: "ROLE",
        default: Default::Is("active"),
        help: "active, or spare: holds nothing while the active workers of its pool live",
    },
    Setting { name: "capacity", value: "COUNT", default: Default::Is("0"), help: "Most mailboxes; 0: no limit" },
    Setting {
        name: "returning",
        value: "BOOL",
        default: Default::Is("true"),
        help: "After a stop its mailboxes wait a while for a process of the same name; false: they go to others at once",
    },
    Setting {
        name: "tls.ca-file",
        value: "FILE",
        default: Default::Nothing("the CA certificates of the system"),
        help: "PEM file with the CA certificates by which it trusts the control plane",
    },
    Setting {
        name: "tls.certificate-file",
        value: "FILE",
        default: Default::Nothing("a token says who it is"),
        help: "PEM file with a client certificate that names this worker; read again when it changes",
    },
    Setting {
        name: "tls.key-file",
        value: "FILE",
        default: Default::Nothing("a token says who it is"),
        help: "PEM file with the key of the client certificate",
    },
    Setting {
        name: "tls.identity-dir",
        value: "DIR",
        default: Default::Nothing("it is not enrolled"),
        help: "Folder for the certificate that it gets by enrolment and renews by itself",
    },
    Setting {
        name: "tls.enrolment-token-file",
        value: "FILE",
        default: Default::Nothing("it was enrolled before"),
        help: "Holds the token of `postroom worker enroll NAME`, which is used once",
    },
    Setting {
        name: "reading.poll",
        value: "TIME",
        default: Default::Is("5m"),
        help: "A mailbox is looked at after this time even when the server tells nothing",
    },
    Setting {
        name: "reading.idle-renew",
        value: "TIME",
        default: Default::Is("9m"),
        help: "IDLE is begun anew after this time; servers drop it after 30 minutes, firewalls often sooner",
    },
    Setting {
        name: "reading.byte-budget",
        value: "SIZE",
        default: Default::Is("256MiB"),
        help: "Memory for messages that are fetched and not yet committed, for the whole worker",
    },
    Setting {
        name: "reading.connect-timeout",
        value: "TIME",
        default: Default::Is("15s"),
        help: "Longest wait for TCP, and for TLS",
    },
    Setting {
        name: "reading.step-timeout",
        value: "TIME",
        default: Default::Is("1m"),
        help: "Longest silence of a mail server in the middle of a command",
    },
    Setting {
        name: "reading.token-timeout",
        value: "TIME",
        default: Default::Is("15s"),
        help: "Longest wait for an OAuth token",
    },
    Setting {
        name: "reading.longest-stall",
        value: "TIME",
        default: Default::Is("30m"),
        help: "Longest time in which nothing moves while a mailbox waits for the control plane, its turn or memory; then it begins anew",
    },
    Setting {
        name: "reading.drain-timeout",
        value: "TIME",
        default: Default::Is("10s"),
        help: "Longest time for a mailbox to finish its report when it is let go",
    },
    Setting {
        name: "sending.keep",
        value: "TIME",
        default: Default::Is("0s"),
        help: "A connection to an SMTP server is kept so long for the next mail; with several workers 0s, for servers count",
    },
    Setting {
        name: "start.burst",
        value: "COUNT",
        default: Default::Is("50"),
        help: "So many mailboxes connect at once, at the start and after their connections broke",
    },
    Setting {
        name: "start.rate",
        value: "COUNT",
        default: Default::Is("10"),
        help: "After the burst, so many mailboxes a second connect",
    },
    Setting {
        name: "start.per-host",
        value: "COUNT",
        default: Default::Is("10"),
        help: "Most mailboxes that connect at once to one mail server",
    },
    Setting {
        name: "start.per-tenant",
        value: "COUNT",
        default: Default::Is("10"),
        help: "Most mailboxes that connect at once for one tenant",
    },
    Setting {
        name: "start.spread",
        value: "TIME",
        default: Default::Is("2s"),
        help: "The mailboxes of a worker that starts, if more than the burst, begin at random within this time; 0s: at once",
    },
    Setting {
        name: "observe.listen",
        value: "ADDR",
        default: Default::Is("127.0.0.1:7432"),
        help: "Where to serve metrics and health over HTTP, for those who can reach it; off: nowhere",
    },
    choice::ENDPOINT_SETTING,
    choice::SHARE_SETTING,
    choice::CA_FILE_SETTING,
    Setting {
        name: "log.filter",
        value: "FILTER",
        default: Default::Is("info"),
        help: "What is logged: a level, or directives such as postroom_worker=debug,info",
    },
    Setting {
        name: "log.format",
        value: "FORMAT",
        default: Default::Is("text"),
        help: "text, or json with an object a line",
    },
];

const ROLES: &[(&str, WorkerRole)] = &[("active", WorkerRole::Active), ("spare", WorkerRole::Spare)];

/// A worker as it is set.
#[derive(Debug)]
pub struct Launch {
    /// The worker.
    pub config: Config,
    /// Where traces go. `None`: nowhere.
    pub traces: Option<trace::Choice>,
    /// What is logged.
    pub log_filter: String,
    /// How it is logged.
    pub log_format: log::Format,
}

/// What the settings make, or every fault of them. `host`: name of the host; `read_file`: what a file holds.
pub fn read(
    settings: &mut Settings,
    host: &str,
    read_file: impl Fn(&Path) -> io::Result<String>,
) -> Result<Launch, Refusal> {
    let endpoints = settings.value("control-plane", form::list(url));
    let insecure = settings.value("insecure", form::switch);
    let identity = identity(settings, read_file);
    let ca_file = settings.path("tls.ca-file");
    let config = Config {
        name: settings.optional("name", form::name).unwrap_or_else(|| name_of(host)),
        pool: settings.value("pool", form::name),
        role: settings.optional("role", form::choice(ROLES)).unwrap_or(WorkerRole::Active),
        capacity: settings.value("capacity", form::count),
        returning: settings.value("returning", form::switch),
        reading: reading(settings),
        sending: Sending { keep: settings.value("sending.keep", form::duration) },
        observe: observe(settings),
        identity: identity.unwrap_or_else(|| Identity::Token(SecretString::default())),
        ca_file,
        endpoints,
    };
    let traces = choice::read(settings);
    let log_filter = settings.value("log.filter", log::filter);
    let log_format = settings.value("log.format", form::choice(log::FORMATS));
    for endpoint in config.endpoints.iter().filter(|endpoint| endpoint.starts_with("http://")) {
        let what = if !matches!(config.identity, Identity::Token(_)) {
            format!("{endpoint} is without TLS, over which alone a certificate can be shown; write https://")
        } else if !insecure && !is_loopback(endpoint) {
            format!(
                "calling {endpoint} would send tokens and mail over the network in the clear; write https://, name one on \
                 this machine, or say --insecure where something else protects the connection"
            )
        } else {
            continue;
        };
        settings.fault("control-plane", what);
    }
    settings.end()?;
    Ok(Launch { config, traces, log_filter, log_format })
}

fn reading(settings: &mut Settings) -> Reading {
    let byte_budget = settings.value("reading.byte-budget", form::bytes);
    let start = Start {
        burst: settings.value("start.burst", form::some),
        rate: settings.value("start.rate", form::some),
        per_host: settings.value("start.per-host", form::some),
        per_tenant: settings.value("start.per-tenant", form::some),
        spread: settings.value("start.spread", form::duration),
    };
    let mut time = |name| settings.value(name, form::some_time);
    Reading {
        poll: time("reading.poll"),
        idle_renew: time("reading.idle-renew"),
        connect_timeout: time("reading.connect-timeout"),
        step_timeout: time("reading.step-timeout"),
        token_timeout: time("reading.token-timeout"),
        longest_stall: time("reading.longest-stall"),
        drain_timeout: time("reading.drain-timeout"),
        byte_budget,
        start,
        ..Reading::default()
    }
}

/// By what the control plane knows this worker: one of three.
fn identity(settings: &mut Settings, read_file: impl Fn(&Path) -> io::Result<String>) -> Option<Identity> {
    let token_file = settings.path("token-file");
    let pair = (settings.path("tls.certificate-file"), settings.path("tls.key-file"));
    let folder = settings.path("tls.identity-dir");
    let enrolment = settings.path("tls.enrolment-token-file");
    if folder.is_none() && enrolment.is_some() {
        settings.fault("tls.identity-dir", "is missing: name a folder for the certificate that the enrolment brings");
        return None;
    }
    match (token_file, pair, folder) {
        (Some(path), (None, None), None) => token(settings, &path, read_file).map(Identity::Token),
        (None, (Some(certificate), Some(key)), None) => Some(Identity::Certificate { certificate, key }),
        (None, (None, None), Some(folder)) => Some(Identity::Enrolled { folder, token_file: enrolment }),
        (None, (None, None), None) => {
            let text = "is missing, and so is a certificate; name a file with a token, or tls.certificate-file and \
                        tls.key-file, or tls.identity-dir and tls.enrolment-token-file";
            settings.fault("token-file", text);
            None
        }
        (None, (Some(_), None), None) => {
            settings.fault("tls.key-file", "is missing: a client certificate is of no use without its key");
            None
        }
        (None, (None, Some(_)), None) => {
            settings.fault("tls.certificate-file", "is missing: the key is that of no client certificate");
            None
        }
        _ => {
            let text = "a worker is known by one thing: leave out all but one of token-file, tls.certificate-file with \
                        tls.key-file, and tls.identity-dir";
            settings.fault("token-file", text);
            None
        }
    }
}

/// The default address is not insisted on: a second worker of a machine finds it in use.
fn observe(settings: &mut Settings) -> Listen {
    let address = settings.value("observe.listen", Listen::parse);
    Listen::of(address, !settings.unsaid().contains(&"observe.listen"))
}

fn token(
    settings: &mut Settings,
    path: &Path,
    read_file: impl Fn(&Path) -> io::Result<String>,
) -> Option<SecretString> {
    let fault = match read_file(path) {
        Ok(text) if !text.trim().is_empty() => return Some(text.trim().into()),
        Ok(_) => format!("{} is empty; write the token into it", path.display()),
        Err(error) => {
            format!("cannot read {}: {error}; copy worker.token from the control plane's data folder", path.display())
        }
    };
    settings.fault("token-file", fault);
    None
}

/// `http://host:port` or `https://host:port`.
fn url(text: &str) -> Result<String, String> {
    let parsed = text.parse::<Uri>().ok().filter(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some()
            && uri.port_u16().is_some()
            && uri.path() == "/"
    });
    parsed.map(|_| text.into()).ok_or_else(|| format!("{text:?} is no URL of a control plane; write https://host:port"))
}

fn is_loopback(endpoint: &str) -> bool {
    let uri = endpoint.parse::<Uri>().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use postroom_proto::settings::{CommandLine, Sources, uncommented};
    use secrecy::ExposeSecret as _;

    use super::*;

    fn settings(file: &str) -> Settings {
        let typed = CommandLine::default();
        let file = Some((Path::new("/etc/worker.toml"), file));
        Settings::gather(PROGRAM, &Sources { typed: &typed, variables: Vec::new(), file })
    }

    fn launched(file: &str) -> Result<Launch, Refusal> {
        read(&mut settings(file), "Mail-1.example.org", |path| match path.to_str() {
            Some("/etc/worker.token") => Ok("planted\n".into()),
            Some("/etc/empty") => Ok("\n".into()),
            _ => Err(io::ErrorKind::NotFound.into()),
        })
    }

    fn faults(file: &str) -> Vec<String> {
        launched(file).unwrap_err().faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_defaults_are_those_of_the_code() {
        let file = "control-plane = \"http://127.0.0.1:7430\"\ntoken-file = \"worker.token\"";
        let config = launched(file).unwrap().config;
        assert_eq!(config.observe, Listen::Perhaps(([127, 0, 0, 1], 7432).into()));
        let config = Config { observe: Listen::Off, ..config };
        let Identity::Token(token) = &config.identity else { panic!("{config:?}") };
        assert_eq!(token.expose_secret(), "planted");
        let usual = Config::new("http://127.0.0.1:7430", token.clone(), "mail-1-example-org");
        assert_eq!(format!("{config:?}"), format!("{usual:?}"));
    }

    #[test]
    fn faults_that_show_only_together_are_told_with_the_others() {
        let told = faults(
            "control-plane = [\"http://cp.example:1\", \"http://[::1]:2\"]\ntoken-file = \"empty\"\nrole = \"both\"",
        );
        assert_eq!(told[0], "token-file (/etc/worker.toml): /etc/empty is empty; write the token into it");
        assert_eq!(told[1], "role (/etc/worker.toml): \"both\" is not known here; write active or spare");
        assert!(
            told[2].starts_with("control-plane (/etc/worker.toml): calling http://cp.example:1 would send"),
            "{told:?}"
        );
        assert_eq!(told.len(), 3, "{told:?}");
        let told = faults("control-plane = \"https://localhost\"\ntoken-file = \"missing\"");
        assert!(told[0].contains("write https://host:port") && told[1].contains("copy worker.token"), "{told:?}");
        assert!(
            launched("control-plane = \"http://cp.example:1\"\ninsecure = true\ntoken-file = \"worker.token\"").is_ok()
        );
    }

    #[test]
    fn the_commented_example_has_every_setting_and_starts() {
        let example =
            include_str!("../../../deploy/config/worker.toml").replace("/etc/postroom/worker.token", "worker.token");
        assert!(faults(&example)[0].contains("and so is a certificate"), "who it is stands in the unit");
        launched(&format!("token-file = \"worker.token\"\n{example}")).unwrap();
        let whole = uncommented(&example);
        assert_eq!(settings(&whole).unsaid(), [""; 0], "the example does not mention them");
        // A worker is known by one of three things.
        let lines = |left_out: &[&str]| {
            let kept = whole.lines().filter(|line| !left_out.iter().any(|key| line.starts_with(key)));
            kept.collect::<Vec<_>>().join("\n").replace("http://127", "https://127")
        };
        let (pair, enrolment) = (["certificate-file", "key-file"], ["identity-dir", "enrolment-token-file"]);
        launched(&lines(&[pair, enrolment].concat())).unwrap();
        launched(&lines(&[["token-file"].as_slice(), &enrolment].concat())).unwrap();
        launched(&lines(&[["token-file"].as_slice(), &pair].concat())).unwrap();
        assert!(faults(&lines(&[]))[0].contains("leave out all but one"));
    }

    #[test]
    fn a_worker_is_known_by_one_thing_and_a_certificate_is_shown_over_tls() {
        let url = "control-plane = \"https://cp.example:1\"\n";
        let enrolled = "[tls]\nidentity-dir = \"id\"\nenrolment-token-file = \"t\"";
        let config = launched(&format!("{url}{enrolled}")).unwrap().config;
        assert!(matches!(&config.identity, Identity::Enrolled { folder, .. } if folder == Path::new("/etc/id")));
        assert!(faults(url)[0].contains("and so is a certificate"));
        let told = faults(&format!("control-plane = \"http://127.0.0.1:1\"\n{enrolled}"));
        assert!(told[0].contains("write https://"), "{told:?}");
        let told = faults(&format!("{url}[tls]\nkey-file = \"k\""));
        assert!(told[0].starts_with("tls.certificate-file (default): is missing"), "{told:?}");
        let told = faults(&format!("{url}[tls]\nenrolment-token-file = \"t\""));
        assert!(told[0].starts_with("tls.identity-dir (default): is missing"), "{told:?}");
    }
}
