//! `system`, `instance`, `incoming-server`, `outgoing-server` and `queue`.

use postroom_proto::v1;

use super::change::{self, Noun};
use super::{Session, check};
use crate::args::{Definition, IncomingServer, OutgoingServer, Queue, System};
use crate::error::Error;
use crate::model_file;
use crate::render::{table, time, words};

pub(super) async fn instance(session: &mut Session<'_, '_>, verb: Definition) -> Result<(), Error> {
    let client = session.client()?;
    match verb {
        Definition::List => session.show(&client.list_instances().await?, |all| instances(&all.instances)),
        Definition::Show { name } => session.show(&client.get_instance(name).await?, one_instance),
        Definition::Set(args) => change::set(session, Noun::Instance, &args).await,
        Definition::Remove(args) => change::remove(session, Noun::Instance, &args).await,
    }
}

pub(super) async fn incoming_server(session: &mut Session<'_, '_>, verb: IncomingServer) -> Result<(), Error> {
    let client = session.client()?;
    let verb = match verb {
        IncomingServer::Definition(verb) => verb,
        IncomingServer::Check { name, mailbox } => {
            let steps = client.check_incoming_server(name, mailbox.unwrap_or_default()).await?;
            return check::follow(session, steps).await;
        }
    };
    match verb {
        Definition::List => session.show(&client.list_incoming_servers().await?, |all| servers(&all.incoming_servers)),
        Definition::Show { name } => session.show(&client.get_incoming_server(name).await?, one_server),
        Definition::Set(args) => change::set(session, Noun::IncomingServer, &args).await,
        Definition::Remove(args) => change::remove(session, Noun::IncomingServer, &args).await,
    }
}

pub(super) async fn outgoing_server(session: &mut Session<'_, '_>, verb: OutgoingServer) -> Result<(), Error> {
    let client = session.client()?;
    let verb = match verb {
        OutgoingServer::Definition(verb) => verb,
        OutgoingServer::Check { name, from } => {
            let steps = client.check_outgoing_server(name, from.unwrap_or_default()).await?;
            return check::follow(session, steps).await;
        }
    };
    match verb {
        Definition::List => session.show(&client.list_outgoing_servers().await?, |all| outgoing(&all.outgoing_servers)),
        Definition::Show { name } => session.show(&client.get_outgoing_server(name).await?, one_outgoing),
        Definition::Set(args) => change::set(session, Noun::OutgoingServer, &args).await,
        Definition::Remove(args) => change::remove(session, Noun::OutgoingServer, &args).await,
    }
}

pub(super) async fn queue(session: &mut Session<'_, '_>, verb: Queue) -> Result<(), Error> {
    let client = session.client()?;
    match verb {
        Queue::List => session.show(&client.list_queues().await?, |all| queues(&all.queues)),
        Queue::Show { name } => session.show(&client.get_queue(name).await?, one_queue),
        Queue::Set(args) => change::set_queue(session, &args).await,
        Queue::Remove(args) => change::remove(session, Noun::Queue, &args).await,
    }
}

pub(super) async fn system(session: &mut Session<'_, '_>, verb: System) -> Result<(), Error> {
    match verb {
        System::Show => session.show(&session.client()?.get_system().await?, |system| {
            table::pairs([
                ("language", system.language.clone()),
                ("priority", number(system.priority)),
                ("revision", number(u32::try_from(system.revision).unwrap_or(u32::MAX))),
            ])
        }),
        System::Set(keys) => change::set_system(session, &keys).await,
    }
}

fn outgoing(servers: &[v1::OutgoingServer]) -> String {
    let row = |s: &v1::OutgoingServer| {
        [
            s.name.clone(),
            yes(s.enabled()),
            words::outgoing_authentication(s.authentication),
            s.server.clone(),
            s.user.clone(),
            words::transport(s.transport),
            s.registration.clone(),
        ]
    };
    let header = ["NAME", "ENABLED", "AUTHENTICATION", "SERVER", "USER", "TRANSPORT", "REGISTRATION"];
    table::rows(header, servers.iter().map(row))
}

fn one_outgoing(server: &v1::OutgoingServer) -> String {
    table::pairs([
        ("name", server.name.clone()),
        ("uid", server.uid.clone()),
        ("enabled", yes(server.enabled())),
        ("server", server.server.clone()),
        ("authentication", words::outgoing_authentication(server.authentication)),
        ("user", server.user.clone()),
        ("password", set(server.password_set)),
        ("client id", server.client_id.clone()),
        ("secret", set(server.secret_set)),
        ("registration", server.registration.clone()),
        ("transport", words::transport(server.transport)),
        ("smtp", reached(&server.smtp_host, server.smtp_port)),
        ("smtp security", words::smtp_security(server.smtp_security)),
        ("graph host", server.graph_host.clone()),
        ("scope", server.scope.clone()),
        ("ca file", server.ca_file.clone()),
        ("proxy", server.proxy.clone()),
        ("sent copy", words::sent_copy(server.sent_copy)),
        ("sent folder", server.sent_folder.clone()),
        ("revision", server.revision.to_string()),
    ])
}

fn yes(yes: bool) -> String {
    if yes { "yes" } else { "no" }.into()
}

fn instances(instances: &[v1::Instance]) -> String {
    let row = |i: &v1::Instance| [i.name.clone(), i.pool.clone(), words::allocation(i.allocation)];
    table::rows(["NAME", "POOL", "ALLOCATION"], instances.iter().map(row))
}

fn one_instance(instance: &v1::Instance) -> String {
    table::pairs([
        ("name", instance.name.clone()),
        ("uid", instance.uid.clone()),
        ("pool", instance.pool.clone()),
        ("allocation", words::allocation(instance.allocation)),
        ("revision", instance.revision.to_string()),
    ])
}

fn servers(servers: &[v1::IncomingServer]) -> String {
    let row = |s: &v1::IncomingServer| {
        [s.name.clone(), words::authentication(s.authentication), s.address.clone(), imap(s), set(s.secret_set)]
    };
    table::rows(["NAME", "AUTHENTICATION", "ADDRESS", "IMAP", "SECRET"], servers.iter().map(row))
}

fn one_server(server: &v1::IncomingServer) -> String {
    table::pairs([
        ("name", server.name.clone()),
        ("uid", server.uid.clone()),
        ("address", server.address.clone()),
        ("authentication", words::authentication(server.authentication)),
        ("client id", server.client_id.clone()),
        ("secret", set(server.secret_set)),
        ("imap", imap(server)),
        ("imap security", words::security(server.imap_security)),
        ("scope", server.scope.clone()),
        ("ca file", server.ca_file.clone()),
        ("secret expires", server.secret_expires.clone()),
        ("proxy", server.proxy.clone()),
        ("revision", server.revision.to_string()),
    ])
}

fn queues(queues: &[v1::Queue]) -> String {
    let row = |q: &v1::Queue| {
        [
            q.name.clone(),
            q.instance.clone(),
            q.language.clone(),
            number(q.priority),
            q.addresses.len().to_string(),
            start(q),
            after_intake(q),
        ]
    };
    let header = ["NAME", "INSTANCE", "LANGUAGE", "PRIORITY", "ADDRESSES", "START", "AFTER INTAKE"];
    table::rows(header, queues.iter().map(row))
}

fn one_queue(queue: &v1::Queue) -> String {
    let max = Some(queue.max_message_bytes).filter(|max| *max > 0);
    let mut shown = table::pairs([
        ("name", queue.name.clone()),
        ("uid", queue.uid.clone()),
        ("instance", queue.instance.clone()),
        ("language", queue.language.clone()),
        ("priority", number(queue.priority)),
        ("largest message", max.map(time::size).unwrap_or_default()),
        ("start", start(queue)),
        ("after intake", after_intake(queue)),
        ("backlog guard", backlog_guard(queue)),
        ("revision", queue.revision.to_string()),
    ]);
    if queue.addresses.is_empty() {
        return shown;
    }
    let row = |a: &v1::Address| {
        [
            a.email.clone(),
            number(a.priority),
            a.language.clone(),
            a.account.clone(),
            set(a.password_set),
            if a.sender { "yes" } else { "no" }.into(),
            a.server.clone(),
            a.folder.clone(),
            a.mailbox.clone(),
        ]
    };
    let header = ["EMAIL", "PRIORITY", "LANGUAGE", "ACCOUNT", "PASSWORD", "SENDER", "SERVER", "FOLDER", "MAILBOX"];
    shown.push('\n');
    shown + &table::rows(header, queue.addresses.iter().map(row))
}

fn imap(server: &v1::IncomingServer) -> String {
    reached(&server.imap_host, server.imap_port)
}

/// Where a server is reached, as far as it was written.
fn reached(host: &str, port: u32) -> String {
    match (host, port) {
        ("", 0) => String::new(),
        (host, 0) => host.into(),
        (host, port) => format!("{host}:{port}"),
    }
}

fn start(queue: &v1::Queue) -> String {
    let start = queue.start.unwrap_or_default();
    match &start.since_time {
        Some(since) => format!("since {}", time::time(Some(since))),
        None => words::start(start.policy),
    }
}

fn after_intake(queue: &v1::Queue) -> String {
    queue.after_intake.as_ref().and_then(model_file::after_intake).unwrap_or_default()
}

/// Empty: the default.
fn backlog_guard(queue: &v1::Queue) -> String {
    queue.backlog_guard.as_ref().map(|guard| model_file::backlog_guard(guard).to_string()).unwrap_or_default()
}

fn set(set: bool) -> String {
    if set { "set" } else { "-" }.into()
}

/// 0 stands for the default of whatever is above.
fn number(number: u32) -> String {
    if number == 0 { String::new() } else { number.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_queue() -> v1::Queue {
        let address = |email: &str, priority| v1::Address {
            email: email.into(),
            priority,
            server: "Office 365 (service)".into(),
            folder: "INBOX".into(),
            mailbox: "mbx-0123456789abcdef01234567".into(),
            password_set: priority == 5,
            sender: priority == 5,
            ..Default::default()
        };
        v1::Queue {
            uid: "que-1".into(),
            name: "Billing".into(),
            instance: "core1".into(),
            language: "en".into(),
            priority: 10,
            max_message_bytes: 26_214_400,
            start: Some(v1::Start { policy: v1::StartPolicy::Unseen.into(), since_time: None }),
            after_intake: Some(v1::AfterIntake {
                policy: v1::AfterIntakePolicy::Move.into(),
                folder: "Done".into(),
                keep: None,
            }),
            backlog_guard: Some(v1::BacklogGuard { message_count: 250, off: false }),
            addresses: vec![address("billing@contoso.example", 5), address("rechnung@contoso.example", 0)],
            revision: 7,
        }
    }

    #[test]
    fn a_queue_is_shown_in_a_line_and_with_everything() {
        let queue = a_queue();
        insta::assert_snapshot!(queues(std::slice::from_ref(&queue)));
        insta::assert_snapshot!(one_queue(&queue));
    }

    #[test]
    fn a_server_is_shown_in_a_line_and_with_everything() {
        let server = v1::IncomingServer {
            uid: "srv-1".into(),
            name: "Office 365 (service)".into(),
            address: "https://login.microsoftonline.com/contoso.example".into(),
            authentication: v1::Authentication::OauthService.into(),
            client_id: "11111111-2222-3333-4444-555555555555".into(),
            secret_set: true,
            imap_host: "outlook.office365.com".into(),
            imap_port: 993,
            imap_security: v1::Security::Tls.into(),
            revision: 3,
            ..Default::default()
        };
        insta::assert_snapshot!(servers(std::slice::from_ref(&server)));
        insta::assert_snapshot!(one_server(&server));
    }
}
