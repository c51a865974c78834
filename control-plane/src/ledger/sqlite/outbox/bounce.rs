//! Mails that come back: found by their Message-ID in the transaction that takes the bounce in.

use sqlx::SqliteConnection;

use super::super::super::Micros;
use super::row;
use crate::outbox::state::Recipient;

/// Id of the mail of an instance that has this Message-ID.
pub(in super::super) async fn find(
    connection: &mut SqliteConnection,
    instance_uid: &str,
    message_id: &str,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT mail FROM outbox WHERE message_id = ? AND instance_uid = ?")
        .bind(message_id)
        .bind(instance_uid)
        .fetch_optional(connection)
        .await
}

/// Records that a mail came back for these recipients.
pub(in super::super) async fn apply(
    connection: &mut SqliteConnection,
    mail: &str,
    recipients: &[Recipient],
    now: Micros,
) -> Result<(), sqlx::Error> {
    let Some(under) = row::under(connection, "mail = ?", mail).await? else { return Ok(()) };
    match under.standing.clone().bounce(recipients, now) {
        Some(after) => row::write(connection, &under, &after, now).await,
        None => Ok(()),
    }
}
