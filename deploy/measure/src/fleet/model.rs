//! Definitions for as many mailboxes as are wanted. Nobody signs in to them.

use postroom_cli::client::Client;
use postroom_proto::v1::{self, Authentication};

/// Addresses of one queue.
const OF_A_QUEUE: usize = 1_000;
/// Queues that are applied in one request, to stay below its largest size.
const QUEUES_AT_ONCE: usize = 20;
const SERVER: &str = "nowhere";
const INSTANCE: &str = "core1";

/// Applies a model with `mailboxes` addresses, in parts; the number of requests.
pub(crate) async fn apply(client: &Client, mailboxes: usize) -> anyhow::Result<usize> {
    let ground = v1::Model {
        instances: vec![v1::Instance { name: INSTANCE.into(), ..Default::default() }],
        incoming_servers: vec![v1::IncomingServer {
            name: SERVER.into(),
            address: "https://login.microsoftonline.com/contoso.example".into(),
            authentication: Authentication::OauthService.into(),
            client_id: "9f2a5f6e-0000-4000-8000-000000000000".into(),
            secret: Some(v1::SecretInput { value: "nobody signs in with it".into(), clear: false }),
            ..Default::default()
        }],
        ..Default::default()
    };
    client.apply_model(ground).await?;
    let queues: Vec<usize> = (0..mailboxes.div_ceil(OF_A_QUEUE)).collect();
    for part in queues.chunks(QUEUES_AT_ONCE) {
        let queues = part.iter().map(|queue| v1::Queue {
            name: format!("queue {queue}"),
            instance: INSTANCE.into(),
            addresses: (queue * OF_A_QUEUE..mailboxes.min((queue + 1) * OF_A_QUEUE)).map(address).collect(),
            ..Default::default()
        });
        client.apply_model(v1::Model { queues: queues.collect(), ..Default::default() }).await?;
    }
    Ok(1 + queues.len().div_ceil(QUEUES_AT_ONCE))
}

fn address(number: usize) -> v1::Address {
    v1::Address { email: format!("mailbox-{number}@contoso.example"), server: SERVER.into(), ..Default::default() }
}
