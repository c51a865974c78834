//! What an operator may set of a worker that runs by itself.

use std::io;
use std::path::Path;

use http::Uri;
use postroom_proto::id::name_of;
use postroom_proto::log;
use postroom_proto::observe::Listen;
use postroom_proto::settings::{Default, Program, Refusal, Setting, Settings, form};
use postroom_proto::v1::WorkerRole;
use secrecy::SecretString;

use super::{Config, Reading, Sending, Start};

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
        default: Default::Required,
        help: "Holds the token for workers: a copy of worker.token in the data folder of the control plane",
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
    let token = settings.path("token-file").and_then(|path| token(settings, &path, read_file));
    let config = Config {
        name: settings.optional("name", form::name).unwrap_or_else(|| name_of(host)),
        pool: settings.value("pool", form::name),
        role: settings.optional("role", form::choice(ROLES)).unwrap_or(WorkerRole::Active),
        capacity: settings.value("capacity", form::count),
        returning: settings.value("returning", form::switch),
        reading: reading(settings),
        sending: Sending { keep: settings.value("sending.keep", form::duration) },
        observe: observe(settings),
        token: token.unwrap_or_default(),
        endpoints,
    };
    let log_filter = settings.value("log.filter", log::filter);
    let log_format = settings.value("log.format", form::choice(log::FORMATS));
    for endpoint in config.endpoints.iter().filter(|endpoint| !insecure && !is_loopback(endpoint)) {
        let what = format!(
            "calling {endpoint} would send tokens and mail over the network in the clear; name one on this machine, or \
             say --insecure where something else protects the connection"
        );
        settings.fault("control-plane", what);
    }
    settings.end()?;
    Ok(Launch { config, log_filter, log_format })
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

/// `http://host:port`.
fn url(text: &str) -> Result<String, String> {
    let parsed = text.parse::<Uri>().ok().filter(|uri| {
        uri.scheme_str() == Some("http") && uri.host().is_some() && uri.port_u16().is_some() && uri.path() == "/"
    });
    parsed.map(|_| text.into()).ok_or_else(|| format!("{text:?} is no URL of a control plane; write http://host:port"))
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
        assert_eq!(config.token.expose_secret(), "planted");
        assert_eq!(config.observe, Listen::Perhaps(([127, 0, 0, 1], 7432).into()));
        let config = Config { observe: Listen::Off, ..config };
        let usual = Config::new("http://127.0.0.1:7430", config.token.clone(), "mail-1-example-org");
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
        let told = faults("control-plane = \"https://localhost:1\"\ntoken-file = \"missing\"");
        assert!(told[0].contains("write http://host:port") && told[1].contains("copy worker.token"), "{told:?}");
        assert!(
            launched("control-plane = \"http://cp.example:1\"\ninsecure = true\ntoken-file = \"worker.token\"").is_ok()
        );
    }

    #[test]
    fn the_commented_example_has_every_setting_and_starts() {
        let example =
            include_str!("../../../deploy/config/worker.toml").replace("/etc/postroom/worker.token", "worker.token");
        launched(&example).unwrap();
        let whole = uncommented(&example);
        assert_eq!(settings(&whole).unsaid(), [""; 0], "the example does not mention them");
        launched(&whole).unwrap();
    }
}
