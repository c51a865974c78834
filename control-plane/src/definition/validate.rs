//! What a model must be. Pure; finds all faults at once, each with what to write instead.

use std::collections::{BTreeMap, HashMap, HashSet};

use email_address::{EmailAddress, Options};
use postroom_proto::id::is_name;
use postroom_proto::limits::LARGEST_MESSAGE_BYTES;
use postroom_proto::reason::FieldFault;

use super::merge::{Draft, Drafted, PRUNE};
use super::model::{Address, AfterIntake, Authentication, IncomingServer, Instance, Queue};
use super::object::Kind;
use super::{normalise, object};

mod outgoing;

/// Most characters of a name.
const NAME_CHARS: usize = 200;
/// Longest name of a folder, with those of the folders that it is in.
const FOLDER_BYTES: usize = 1000;
/// Highest priority value, which is the last in line.
const PRIORITY_MAX: u32 = 1000;

/// Every fault of a draft, in the order of the model file.
pub(super) fn validate(draft: &Draft) -> Vec<FieldFault> {
    let mut faults = Faults(draft.faults.clone());
    unique(&mut faults, &draft.instances, |it| &it.name, "instances");
    unique(&mut faults, &draft.servers, |it| &it.name, "incoming servers");
    unique(&mut faults, &draft.outgoing, |it| &it.name, "outgoing servers");
    unique(&mut faults, &draft.queues, |it| &it.name, "queues");
    check_language(&mut faults, "system", &draft.system.language);
    check_priority(&mut faults, "system", draft.system.priority);
    for instance in &draft.instances {
        check_instance(&mut faults, &instance.path, &instance.definition);
    }
    for server in &draft.servers {
        check_server(&mut faults, &server.path, &server.definition, draft.unread.contains(&server.definition.name));
    }
    let instances: HashSet<&str> = draft.instances.iter().map(|it| it.definition.name.as_str()).collect();
    let servers: HashMap<&str, &IncomingServer> =
        draft.servers.iter().rev().map(|it| (it.definition.name.as_str(), &*it.definition)).collect();
    let mut uses = Uses::new(draft);
    for server in &draft.outgoing {
        outgoing::check(&mut faults, server, &servers, draft, &mut uses);
    }
    for queue in &draft.queues {
        check_queue(&mut faults, queue, &instances, &mut uses);
        for (n, address) in queue.definition.addresses.iter().enumerate() {
            let user = User { path: format!("{}.addresses[{n}]", queue.path), queue };
            check_address(&mut faults, &user, address, &servers, &draft.unread, &mut uses);
        }
    }
    one_reader_each(&mut faults, &draft.queues, &servers);
    outgoing::one_sender_each(&mut faults, draft, &servers);
    uses.blame(&mut faults);
    let mut faults = faults.0;
    faults.sort_by_cached_key(|fault| natural(&fault.field));
    faults.dedup();
    faults
}

struct Faults(Vec<FieldFault>);

impl Faults {
    fn add(&mut self, path: &str, field: &str, description: impl Into<String>) {
        let field = if field.is_empty() { path.to_owned() } else { format!("{path}.{field}") };
        self.0.push(FieldFault { field, description: description.into() });
    }
}

/// Who uses what is to be removed.
struct Uses<'a> {
    draft: &'a Draft,
    /// Users by the path of the removal.
    found: BTreeMap<&'a str, (Kind, String, Vec<String>)>,
}

/// Most users that a fault names.
const USERS_NAMED: usize = 5;

impl<'a> Uses<'a> {
    fn new(draft: &'a Draft) -> Self {
        Self { draft, found: BTreeMap::new() }
    }

    /// What to say where something refers to a name that is not there. `None`: the removal is to blame, and told later.
    fn missing(&mut self, kind: Kind, name: &str, user: impl FnOnce() -> String) -> Option<String> {
        let noun = kind.noun().replace('-', " ");
        match self.draft.removed.get(&(kind, name.to_owned())) {
            None => Some(format!("there is no {noun} {name:?}; write the name of one, or add it")),
            Some(path) if path == PRUNE => Some(format!(
                "uses {noun} {name:?}, which would be removed because the model does not name it; \
                 name it there, or change or leave out what uses it"
            )),
            Some(path) => {
                let (_, _, users) = self.found.entry(path).or_insert_with(|| (kind, name.to_owned(), Vec::new()));
                users.push(user());
                None
            }
        }
    }

    fn blame(self, faults: &mut Faults) {
        for (path, (kind, name, users)) in self.found {
            let noun = kind.noun().replace('-', " ");
            let mut named = users.iter().take(USERS_NAMED).cloned().collect::<Vec<_>>().join(", ");
            if users.len() > USERS_NAMED {
                named += &format!(" and {} more", users.len() - USERS_NAMED);
            }
            let text = format!("{noun} {name:?} is used by {named}; change or remove these first");
            faults.add(path, "", text);
        }
    }
}

/// An address as something that refers to others.
struct User<'a> {
    path: String,
    queue: &'a Drafted<Queue>,
}

fn unique<T>(faults: &mut Faults, all: &[Drafted<T>], name: impl Fn(&T) -> &str, what: &str) {
    let mut seen: HashMap<&str, &str> = HashMap::new();
    for it in all {
        let name = name(&it.definition);
        match seen.get(name) {
            Some(first) if !name.is_empty() => {
                let text = format!("{name:?} is also the name of {first}; names of {what} are unique, write another");
                faults.add(&it.path, "name", text);
            }
            _ => _ = seen.insert(name, &it.path),
        }
    }
}

fn check_instance(faults: &mut Faults, path: &str, instance: &Instance) {
    const FORM: &str = "write a small letter, then at most 61 small letters, digits and hyphens, for example core1";
    if !is_name(&instance.name) {
        faults.add(path, "name", format!("{:?} is no name of an instance; {FORM}", instance.name));
    }
    if !instance.pool.is_empty() && !is_name(&instance.pool) {
        faults.add(path, "pool", format!("{:?} is no name of a pool; {FORM}", instance.pool));
    }
}

fn check_server(faults: &mut Faults, path: &str, server: &IncomingServer, unread: bool) {
    check_name(faults, path, &server.name, "server");
    check_host(faults, path, &server.imap_host);
    check_printable(faults, path, "caFile", &server.ca_file);
    // How to sign in decides what else is needed.
    if unread {
        return;
    }
    let visible = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
    if server.authentication == Authentication::Password {
        if server.imap_host.is_empty() {
            faults.add(path, "imap.host", "is missing; with authentication password write the host of the mail server");
        }
        check_printable(faults, path, "address", &server.address);
        check_printable(faults, path, "clientId", &server.client_id);
        check_printable(faults, path, "scope", &server.scope);
        return;
    }
    if server.client_id.is_empty() {
        faults.add(path, "clientId", "is missing; write the application (client) id of the app registration");
    } else if !visible(&server.client_id) {
        faults.add(path, "clientId", "contains spaces or other characters that no client id has; copy it again");
    }
    if !server.scope.split(' ').all(visible) {
        faults.add(path, "scope", "contains characters that no scope has; write scopes with one space between them");
    }
    if server.authentication == Authentication::OauthService && server.secret.is_none() {
        faults.add(
            path,
            "secret",
            "is missing and none is stored; with oauth-service write the value (not the id) of the client secret, \
             for example secret: {env: M365_SECRET}",
        );
    }
    // An address that could not be read has its own fault.
    if normalise::address(&server.address).is_err() {
        return;
    }
    if server.imap_host().is_empty() {
        faults.add(
            path,
            "imap.host",
            "is missing and not known for this login host; write the host of the mail server",
        );
    }
    if server.scope().is_empty() {
        faults.add(path, "scope", "is missing and not known for this login host; write the scope to ask for");
    }
}

fn check_queue(faults: &mut Faults, queue: &Drafted<Queue>, instances: &HashSet<&str>, uses: &mut Uses<'_>) {
    let (path, definition) = (&queue.path, &*queue.definition);
    check_name(faults, path, &definition.name, "queue");
    if definition.instance.is_empty() {
        faults.add(path, "instance", "is missing; write the name of the instance that receives the contacts");
    } else if !instances.contains(definition.instance.as_str()) {
        let user = || format!("queue {:?}", definition.name);
        if let Some(text) = uses.missing(Kind::Instance, &definition.instance, user) {
            faults.add(path, "instance", text);
        }
    }
    check_language(faults, path, &definition.language);
    check_priority(faults, path, definition.priority);
    if definition.max_message_bytes > LARGEST_MESSAGE_BYTES {
        faults.add(path, "maxMessageBytes", format!("is too large; write at most {LARGEST_MESSAGE_BYTES}"));
    }
    if let AfterIntake::Move(folder) = &definition.after_intake {
        check_folder(faults, path, "afterIntake", folder);
    }
    if queue.requested && object::encode_queue(definition).len() > object::MAX_BYTES {
        faults.add(path, "addresses", "are more than one queue can keep; split the queue");
    }
}

fn check_address(
    faults: &mut Faults,
    user: &User<'_>,
    address: &Address,
    servers: &HashMap<&str, &IncomingServer>,
    unread: &HashSet<String>,
    uses: &mut Uses<'_>,
) {
    let path = &user.path;
    let options = Options::default().without_display_text().without_domain_literal();
    if address.email.is_empty() {
        faults.add(path, "email", "is missing; write the address of the mailbox to read");
    } else if EmailAddress::parse_with_options(&address.email, options).is_err() {
        faults.add(path, "email", format!("{:?} is no e-mail address; write name@domain", address.email));
    }
    check_printable(faults, path, "account", &address.account);
    check_language(faults, path, &address.language);
    check_priority(faults, path, address.priority);
    check_folder(faults, path, "folder", &address.folder);
    if address.server.is_empty() {
        faults.add(path, "server", "is missing; write the name of the incoming server that holds the mailbox");
        return;
    }
    let Some(server) = servers.get(address.server.as_str()) else {
        let user = || format!("{} of queue {:?}", address.email, user.queue.definition.name);
        if let Some(text) = uses.missing(Kind::IncomingServer, &address.server, user) {
            faults.add(path, "server", text);
        }
        return;
    };
    let by_user = server.authentication != Authentication::OauthService && !unread.contains(&server.name);
    if by_user && address.password.is_none() {
        let text = format!(
            "is missing and none is stored; server {:?} signs in as the user, so write the password of {}, \
             for example password: {{env: MAIL_PASSWORD}}",
            server.name,
            if address.account().is_empty() { "the account" } else { address.account() }
        );
        faults.add(path, "password", text);
    }
}

/// Two readers of one mailbox would take each other's messages. The request is blamed rather than what is stored.
fn one_reader_each(faults: &mut Faults, queues: &[Drafted<Queue>], servers: &HashMap<&str, &IncomingServer>) {
    let mut readers = HashMap::new();
    let (requested, stored): (Vec<_>, Vec<_>) = queues.iter().partition(|it| it.requested);
    for queue in stored.into_iter().chain(requested) {
        for (n, address) in queue.definition.addresses.iter().enumerate() {
            let server = servers.get(address.server.as_str()).filter(|server| !server.realm().is_empty());
            let Some(server) = server.filter(|_| !address.email.is_empty()) else { continue };
            let path = format!("{}.addresses[{n}]", queue.path);
            if let Some((first, name)) = readers.insert(address.mailbox(server), (path.clone(), &queue.definition.name))
            {
                let text = format!(
                    "{} folder {} is already read by {first} (queue {name:?}); a mailbox feeds one queue, \
                     so leave one of the two out",
                    address.email,
                    address.folder(),
                );
                faults.add(&path, "email", text);
            }
        }
    }
}

fn check_name(faults: &mut Faults, path: &str, name: &str, what: &str) {
    if name.is_empty() {
        faults.add(path, "name", format!("is missing; give the {what} a name"));
    } else if name.chars().count() > NAME_CHARS {
        faults.add(path, "name", format!("is longer than {NAME_CHARS} characters; write a shorter one"));
    } else if name.chars().any(char::is_control) {
        faults.add(path, "name", "contains control characters; write it without them");
    }
}

fn check_host(faults: &mut Faults, path: &str, host: &str) {
    if host.is_empty() {
        return;
    }
    if !normalise::is_host(host) {
        let text =
            format!("{host:?} is no host name; write it without scheme and port, for example outlook.office365.com");
        faults.add(path, "imap.host", text);
    }
}

fn check_printable(faults: &mut Faults, path: &str, field: &str, text: &str) {
    if text.chars().any(char::is_control) {
        faults.add(path, field, "contains control characters; write it without them");
    }
}

fn check_folder(faults: &mut Faults, path: &str, field: &str, folder: &str) {
    if folder.chars().any(char::is_control) {
        faults.add(
            path,
            field,
            format!("{folder:?} contains control characters; write the folder's name without them"),
        );
    } else if folder.len() > FOLDER_BYTES {
        faults.add(path, field, format!("is longer than {FOLDER_BYTES} bytes; write the name of another folder"));
    }
}

fn check_priority(faults: &mut Faults, path: &str, priority: u32) {
    if priority > PRIORITY_MAX {
        let text = format!("is {priority}; write 1 (first) to {PRIORITY_MAX}, or leave it out");
        faults.add(path, "priority", text);
    }
}

/// The shape of RFC 5646 section 2.1, without its registry.
fn check_language(faults: &mut Faults, path: &str, language: &str) {
    let alphanumeric = |tag: &str| (1..=8).contains(&tag.len()) && tag.bytes().all(|b| b.is_ascii_alphanumeric());
    let mut tags = language.split('-');
    let primary = tags.next().unwrap_or_default();
    let primary_fits = (2..=8).contains(&primary.len()) && primary.bytes().all(|b| b.is_ascii_alphabetic());
    let fits = primary_fits && tags.all(alphanumeric) && language.len() <= 35;
    if !language.is_empty() && !fits {
        let text = format!("{language:?} is no language; write a BCP 47 tag, for example en or pt-BR");
        faults.add(path, "language", text);
    }
}

/// Sorts as the model file is written, and `queues[10]` behind `queues[9]`.
fn natural(path: &str) -> String {
    let sections = ["system", "instances", "incomingServers", "outgoingServers", "queues"];
    let section = sections.iter().position(|section| path.starts_with(section)).unwrap_or(sections.len());
    let mut key = section.to_string();
    let mut rest = path;
    while let Some(open) = rest.find('[') {
        let (text, numbered) = rest.split_at(open + 1);
        let digits = numbered.bytes().take_while(u8::is_ascii_digit).count();
        key.push_str(text);
        key.push_str(&"0".repeat(12usize.saturating_sub(digits)));
        key.push_str(&numbered[..digits]);
        rest = &numbered[digits..];
    }
    key.push_str(rest);
    key
}
