//! The model by which measured mailboxes are read: in one queue, or in several where there are many, by OAuth Service.

use postroom_testbed::Testbed;

/// Largest message that is taken unless something else is measured: the default of a queue.
pub(crate) const USUAL: u64 = 26_214_400;

/// Mailboxes of a queue, which keeps about 3,000.
const QUEUE: usize = 1000;

/// A model file. Everything is read, and nothing is marked or moved: the mailboxes stay as they are for the next one.
pub(crate) fn model(testbed: &Testbed, mailboxes: &[String], most_bytes: u64) -> String {
    let service = testbed.service();
    let address = |email: &String| format!("      - {{email: {email}, server: tenant}}\n");
    let queue = |(number, mailboxes): (usize, &[String])| {
        let addresses: String = mailboxes.iter().map(address).collect();
        format!(
            "  - name: queue{number}\n    instance: core1\n    start: all\n    afterIntake: leave\n    backlogGuard: off\n\
             \x20   maxMessageBytes: {most_bytes}\n    addresses:\n{addresses}"
        )
    };
    let queues: String = mailboxes.chunks(QUEUE).enumerate().map(queue).collect();
    format!(
        "instances:\n  - {{name: core1}}\n\
         incomingServers:\n  - name: tenant\n    address: {authority}\n    authentication: oauth-service\n\
         \x20   clientId: {client}\n    secret: {{value: \"{secret}\"}}\n    scope: {scope}\n\
         \x20   imap: {{host: {host}, port: {port}}}\n    caFile: {ca}\n\
         queues:\n{queues}",
        authority = testbed.tenant.authority(),
        client = service.client_id,
        secret = service.secret.as_deref().unwrap_or_default(),
        scope = postroom_testbed::APP_SCOPE,
        host = testbed.host(),
        port = testbed.imap_port(),
        ca = testbed.ca_file().display(),
    )
}
