//! From text to model.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use postroom_proto::reason::FieldFault;
use postroom_proto::{convert, duration, v1};

use super::{Address, File, Guard, IncomingServer, Instance, Lines, OutgoingServer, Queue, Secret, Start};
use crate::Environment;
use crate::error::{Error, Kind};
use crate::render::words;

/// Largest model file, in bytes.
const MAX_FILE: u64 = 64 << 20;

/// A model file that was read.
#[derive(Debug)]
pub struct Document {
    /// What it says.
    pub model: v1::Model,
    /// Where it says it.
    pub lines: Lines,
}

/// Reads a model file; `-` is standard input. Relative paths in it are meant relative to the file.
pub fn read_file(path: &Path, environment: Environment<'_>) -> Result<v1::Model, Error> {
    Ok(read_document(path, environment)?.model)
}

/// Reads a model file, and remembers where each definition stands.
pub fn read_document(path: &Path, environment: Environment<'_>) -> Result<Document, Error> {
    let stdin = path == Path::new("-");
    let bytes = if stdin { read_at_most(io::stdin()) } else { fs::File::open(path).and_then(read_at_most) };
    let unreadable = |error: &dyn std::fmt::Display| {
        Error::new(Kind::Invalid, format!("cannot read the model file {}: {error}", path.display()))
            .help("name a readable YAML file by -f FILE, or - for standard input")
    };
    let text =
        String::from_utf8(bytes.map_err(|error| unreadable(&error))?).map_err(|_| unreadable(&"it is not UTF-8"))?;
    let base = if stdin { Path::new(".") } else { path.parent().unwrap_or(Path::new(".")) };
    let model = read(&text, base, environment)
        .map_err(|error| Error { message: format!("{}: {}", path.display(), error.message), ..error })?;
    Ok(Document { model, lines: Lines::of(&text) })
}

/// Reads the text of a model file and fetches the secrets that it names. `base`: what relative paths are relative to.
pub fn read(text: &str, base: &Path, environment: Environment<'_>) -> Result<v1::Model, Error> {
    let file = parse(text)?;
    if file.is_empty() {
        // Most likely a template that came out empty, or the wrong file. Pruning by it would remove everything.
        return Err(Error::new(Kind::Invalid, "the model file names nothing")
            .help("see that it is the right file; to mean an empty list, write it, for example `queues: []`"));
    }
    convert(file, base, environment).map_err(|error| {
        let lines = Lines::of(text);
        Error { faults: error.faults.into_iter().map(|fault| lines.place(fault)).collect(), ..error }
    })
}

/// From the file's form to the wire's, secrets fetched. Every fault is told.
pub(super) fn convert(file: File, base: &Path, environment: Environment<'_>) -> Result<v1::Model, Error> {
    let mut reading = Reading { base, environment, faults: Vec::new() };
    let model = reading.file(file);
    if reading.faults.is_empty() {
        return Ok(model);
    }
    let message = match reading.faults.len() {
        1 => "1 field is at fault".to_owned(),
        count => format!("{count} fields are at fault"),
    };
    Err(Error::new(Kind::Invalid, message).faults(reading.faults).help("correct the file; nothing was changed"))
}

fn read_at_most(input: impl io::Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::other("it is larger than 64 MiB"));
    }
    Ok(bytes)
}

/// The shape: known keys, the right types.
fn parse(text: &str) -> Result<File, Error> {
    // Without snippets: they would quote lines that may hold secrets. As many nodes as can stand in the text, for its size
    // is bounded already; what aliases may make of it stays bounded as it is.
    let nodes = text.len().max(250_000);
    let options = serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! { max_nodes: nodes, max_events: nodes.saturating_mul(2) },
    };
    let mut path = String::new();
    let parsed = serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            path = error.path().to_string();
            error.into_inner()
        })
    });
    parsed.map_err(|error: serde_saphyr::Error| {
        // serde_path_to_error says `.` for the top and `?` for a place that has no name.
        let path = Some(path.as_str()).filter(|path| !matches!(*path, "" | "." | "?"));
        let line = error.location().map(|place| format!("line {}", place.line()));
        let place: Vec<&str> = line.as_deref().into_iter().chain(path).collect();
        let description = for_people(&error.without_snippet().to_string());
        Error::new(Kind::Invalid, "the model file cannot be read")
            .faults(vec![FieldFault { field: place.join(", "), description }])
            .help("correct the file; nothing was changed")
    })
}

/// The parser's message without what only its programmer can use.
pub(super) fn for_people(message: &str) -> String {
    // The place stands before the message already.
    let message = message.rfind(" at line ").map_or(message, |end| &message[..end]);
    match message.split(", set ").next().unwrap_or(message) {
        "invalid u32" | "invalid u64" => "is not a whole number from 0 up, or too large".into(),
        "invalid bool" | "invalid boolean" => "is neither true nor false".into(),
        other => other.into(),
    }
}

/// What a reading needs, and the faults so far.
struct Reading<'a> {
    base: &'a Path,
    environment: Environment<'a>,
    faults: Vec<FieldFault>,
}

impl Reading<'_> {
    fn file(&mut self, file: File) -> v1::Model {
        v1::Model {
            system: file.system.map(|system| v1::System {
                language: system.language.unwrap_or_default(),
                priority: self.positive("system.priority", system.priority),
                revision: 0,
            }),
            instances: numbered("instances", file.instances.unwrap_or_default(), |path, instance| {
                self.instance(&path, instance)
            }),
            incoming_servers: numbered("incomingServers", file.incoming_servers.unwrap_or_default(), |path, server| {
                self.server(&path, server)
            }),
            outgoing_servers: numbered("outgoingServers", file.outgoing_servers.unwrap_or_default(), |path, server| {
                self.outgoing(&path, server)
            }),
            queues: numbered("queues", file.queues.unwrap_or_default(), |path, queue| self.queue(&path, queue)),
        }
    }

    fn outgoing(&mut self, path: &str, server: OutgoingServer) -> v1::OutgoingServer {
        let at = |field: &str| format!("{path}.{field}");
        let authentication = Some(server.authentication.as_str());
        let smtp = server.smtp.unwrap_or_default();
        v1::OutgoingServer {
            name: server.name,
            enabled: server.enabled,
            server: server.server.unwrap_or_default(),
            authentication: self.word(&at("authentication"), authentication, words::outgoing_authentication),
            user: server.user.unwrap_or_default(),
            password: self.secret(&at("password"), server.password),
            client_id: server.client_id.unwrap_or_default(),
            secret: self.secret(&at("secret"), server.secret),
            registration: server.registration.unwrap_or_default(),
            transport: self.word(&at("transport"), server.transport.as_deref(), words::transport),
            smtp_port: self.positive(&at("smtp.port"), smtp.port),
            smtp_security: self.word(&at("smtp.security"), smtp.security.as_deref(), words::smtp_security),
            smtp_host: smtp.host.unwrap_or_default(),
            graph_host: server.graph_host.unwrap_or_default(),
            scope: server.scope.unwrap_or_default(),
            ca_file: server.ca_file.unwrap_or_default(),
            proxy: server.proxy.unwrap_or_default(),
            sent_copy: self.word(&at("sentCopy"), server.sent_copy.as_deref(), words::sent_copy),
            sent_folder: server.sent_folder.unwrap_or_default(),
            ..Default::default()
        }
    }

    fn instance(&mut self, path: &str, instance: Instance) -> v1::Instance {
        v1::Instance {
            name: instance.name,
            pool: instance.pool.unwrap_or_default(),
            allocation: self.word(&format!("{path}.allocation"), instance.allocation.as_deref(), words::allocation),
            ..Default::default()
        }
    }

    fn server(&mut self, path: &str, server: IncomingServer) -> v1::IncomingServer {
        let at = |field: &str| format!("{path}.{field}");
        if let Some(protocol) = server.protocol.filter(|protocol| protocol != "imap") {
            self.fault(at("protocol"), format!("{protocol:?} is not known here; write imap, or leave it out"));
        }
        let imap = server.imap.unwrap_or_default();
        v1::IncomingServer {
            name: server.name,
            address: server.address.unwrap_or_default(),
            authentication: self.word(&at("authentication"), Some(&server.authentication), words::authentication),
            client_id: server.client_id.unwrap_or_default(),
            secret: self.secret(&at("secret"), server.secret),
            imap_port: self.positive(&at("imap.port"), imap.port),
            imap_security: self.word(&at("imap.security"), imap.security.as_deref(), words::security),
            imap_host: imap.host.unwrap_or_default(),
            scope: server.scope.unwrap_or_default(),
            ca_file: server.ca_file.unwrap_or_default(),
            secret_expires: server.secret_expires.unwrap_or_default(),
            proxy: server.proxy.unwrap_or_default(),
            ..Default::default()
        }
    }

    fn queue(&mut self, path: &str, queue: Queue) -> v1::Queue {
        let at = |field: &str| format!("{path}.{field}");
        v1::Queue {
            name: queue.name,
            instance: queue.instance,
            language: queue.language.unwrap_or_default(),
            priority: self.positive(&at("priority"), queue.priority),
            max_message_bytes: self.positive(&at("maxMessageBytes"), queue.max_message_bytes),
            start: queue.start.map(|start| self.start(&at("start"), &start)),
            after_intake: queue.after_intake.map(|after| self.after_intake(&at("afterIntake"), &after)),
            backlog_guard: queue.backlog_guard.map(|guard| match guard {
                Guard::Off => v1::BacklogGuard { message_count: 0, off: true },
                Guard::MoreThan(message_count) => v1::BacklogGuard { message_count, off: false },
            }),
            addresses: numbered(&at("addresses"), queue.addresses, |path, address| self.address(&path, address)),
            ..Default::default()
        }
    }

    fn address(&mut self, path: &str, address: Address) -> v1::Address {
        v1::Address {
            email: address.email,
            priority: self.positive(&format!("{path}.priority"), address.priority),
            language: address.language.unwrap_or_default(),
            account: address.account.unwrap_or_default(),
            password: self.secret(&format!("{path}.password"), address.password),
            sender: address.sender.unwrap_or_default(),
            server: address.server,
            folder: address.folder.unwrap_or_default(),
            ..Default::default()
        }
    }

    fn start(&mut self, path: &str, start: &Start) -> v1::Start {
        match start {
            Start::Word(word) if word == "since" => {
                self.fault(path, "needs a time; write {since: 2026-01-31}");
                v1::Start::default()
            }
            Start::Word(word) => v1::Start { policy: self.word(path, Some(word), words::start), since_time: None },
            Start::Since(since) => {
                let time = time(since);
                if time.is_none() {
                    self.fault(
                        format!("{path}.since"),
                        format!("{since:?} is no time; write 2026-01-31 (midnight UTC) or 2026-01-31T08:00:00+02:00"),
                    );
                }
                v1::Start {
                    policy: v1::StartPolicy::Since.into(),
                    since_time: time.map(|time| convert::to_timestamp(time.as_microsecond())),
                }
            }
        }
    }

    fn after_intake(&mut self, path: &str, after: &str) -> v1::AfterIntake {
        if let Some(folder) = after.strip_prefix("move:").map(str::trim).filter(|folder| !folder.is_empty()) {
            let policy = v1::AfterIntakePolicy::Move.into();
            return v1::AfterIntake { policy, folder: folder.into(), ..Default::default() };
        }
        if let Some(keep) = after.strip_prefix("delete:") {
            let read = duration::read(keep);
            if read.is_none() {
                self.fault(
                    path,
                    format!("{keep:?} is no time to keep messages for; write \"delete:30d\" or \"delete:12h\""),
                );
            }
            let policy = v1::AfterIntakePolicy::Delete.into();
            return v1::AfterIntake { policy, keep: read.map(convert::to_duration), ..Default::default() };
        }
        if after == "move" || after.starts_with("move:") {
            self.fault(path, "needs a folder; write \"move:Processed\"");
            return v1::AfterIntake::default();
        }
        v1::AfterIntake { policy: self.word(path, Some(after), words::after_intake), ..Default::default() }
    }

    fn secret(&mut self, path: &str, secret: Option<Secret>) -> Option<v1::SecretInput> {
        match secret?.fetch(self.base, self.environment) {
            Ok(input) => Some(input),
            Err(fault) => {
                self.fault(path, fault);
                None
            }
        }
    }

    /// The number of an enum value by its word. An absent word is 0: the control plane's default.
    fn word(&mut self, path: &str, text: Option<&str>, word_of: fn(i32) -> String) -> i32 {
        let Some(text) = text else { return 0 };
        let known: Vec<String> = (1..).map(word_of).take_while(|word| !word.starts_with("unknown-")).collect();
        match (1..).zip(&known).find(|(_, word)| *word == text) {
            Some((number, _)) => number,
            None => {
                self.fault(path, format!("{text:?} is not known; write {}", known.join(" or ")));
                0
            }
        }
    }

    /// On the wire 0 means the default; in a file that would be a surprise.
    fn positive<T: Default + PartialEq>(&mut self, path: &str, number: Option<T>) -> T {
        if number == Some(T::default()) {
            self.fault(path, "must be 1 or more; leave it out for the default");
        }
        number.unwrap_or_default()
    }

    fn fault(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.faults.push(FieldFault { field: field.into(), description: description.into() });
    }
}

/// Converts each item with its path.
fn numbered<T, U>(path: &str, items: Vec<T>, mut convert: impl FnMut(String, T) -> U) -> Vec<U> {
    items.into_iter().enumerate().map(|(index, item)| convert(format!("{path}[{index}]"), item)).collect()
}

/// RFC 3339, or a date, which means its first moment in UTC.
pub(crate) fn time(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    let date = text.parse::<Date>().ok()?;
    // jiff reads the date out of a longer text too; a local time without an offset would lose its hours.
    if date.to_string() != text {
        return None;
    }
    date.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}
