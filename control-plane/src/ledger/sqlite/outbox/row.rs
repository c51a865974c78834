//! Rows of the outbox to values and back.

use postroom_proto::convert::to_timestamp;
use postroom_proto::v1::{self, OutboxState, Problem, RecipientState};
use prost::Message as _;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, FromRow, Row as _, SqliteConnection, SqliteExecutor, SqlitePool};

use super::super::super::outbox::{Lane, Mail};
use super::super::super::{Micros, Raw};
use super::super::row::{int, uint};
use crate::outbox::state::{Recipient, Standing};

/// Columns of [`MailRow`], for a query over `outbox`.
pub(super) const MAIL: &str = "outbox.id AS id, mail, instance_uid, instance, lane, queue, contact, request_id, \
     from_name, from_address, subject, message_id, size_bytes, automatic, recipient_count, created_at, changed_at, \
     outbox.state AS state, due_at, attempt_count, sent_at, problem, response, worker, outgoing_server, look_in";

pub(super) struct MailRow(pub(super) Mail);

impl FromRow<'_, SqliteRow> for MailRow {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let state = state(row.try_get("state")?);
        let sent = matches!(state, OutboxState::Sent | OutboxState::Bounced);
        let sent_at: Option<Micros> = row.try_get("sent_at")?;
        let due_at: Option<Micros> = row.try_get("due_at")?;
        let worker: String = row.try_get("worker")?;
        let mail = v1::OutboxMail {
            id: row.try_get("mail")?,
            instance: row.try_get("instance")?,
            queue: row.try_get("queue")?,
            contact: row.try_get("contact")?,
            request_id: row.try_get("request_id")?,
            state: state.into(),
            from: Some(v1::EmailAddress { name: row.try_get("from_name")?, address: row.try_get("from_address")? }),
            recipients: Vec::new(),
            recipient_count: row.try_get("recipient_count")?,
            subject: row.try_get("subject")?,
            message_id: row.try_get("message_id")?,
            size_bytes: uint(row.try_get("size_bytes")?),
            automatic: row.try_get("automatic")?,
            created_time: Some(to_timestamp(row.try_get("created_at")?)),
            attempt_count: row.try_get("attempt_count")?,
            next_attempt_time: due_at.map(to_timestamp),
            sent_time: sent_at.filter(|_| sent).map(to_timestamp),
            problem: problem(row.try_get("problem")?)?,
            outgoing_server: row.try_get("outgoing_server")?,
            worker: if state == OutboxState::Sending { worker } else { String::new() },
            response: row.try_get("response")?,
            changed_time: Some(to_timestamp(row.try_get("changed_at")?)),
        };
        let lane: String = row.try_get("lane")?;
        let lane = Lane::parse(&lane).ok_or_else(|| sqlx::Error::Decode(format!("{lane:?} is no lane").into()))?;
        let look_in = if state == OutboxState::Unknown { row.try_get("look_in")? } else { String::new() };
        Ok(Self(Mail { row: row.try_get("id")?, instance_uid: row.try_get("instance_uid")?, lane, look_in, mail }))
    }
}

pub(super) fn state(number: i32) -> OutboxState {
    OutboxState::try_from(number).unwrap_or_default()
}

fn problem(stored: Option<Vec<u8>>) -> Result<Option<Problem>, sqlx::Error> {
    let decoded = stored.map(|bytes| Problem::decode(bytes.as_slice())).transpose();
    decoded.map_err(|error| sqlx::Error::Decode(error.into()))
}

/// One mail with its recipients.
pub(super) async fn get(readers: &SqlitePool, id: &str) -> Result<Option<Mail>, sqlx::Error> {
    let query = format!("SELECT {MAIL} FROM outbox WHERE mail = ?");
    let row: Option<MailRow> = sqlx::query_as(AssertSqlSafe(query)).bind(id).fetch_optional(readers).await?;
    let Some(MailRow(mut mail)) = row else { return Ok(None) };
    mail.mail.recipients = recipients(readers, mail.row).await?;
    Ok(Some(mail))
}

/// The mail that was stored under a request, and the digest of that.
pub(super) async fn stored_under(
    readers: &SqlitePool,
    instance_uid: &str,
    request_id: &str,
) -> Result<Option<(Vec<u8>, Mail)>, sqlx::Error> {
    let found: Option<(Vec<u8>, String)> =
        sqlx::query_as("SELECT digest, mail FROM outbox WHERE instance_uid = ? AND request_id = ?")
            .bind(instance_uid)
            .bind(request_id)
            .fetch_optional(readers)
            .await?;
    let Some((digest, mail)) = found else { return Ok(None) };
    Ok(get(readers, &mail).await?.map(|mail| (digest, mail)))
}

/// The same within a transaction, by row.
pub(super) async fn get_row(connection: &mut SqliteConnection, row: i64) -> Result<Mail, sqlx::Error> {
    let query = format!("SELECT {MAIL} FROM outbox WHERE id = ?");
    let MailRow(mut mail) = sqlx::query_as(AssertSqlSafe(query)).bind(row).fetch_one(&mut *connection).await?;
    mail.mail.recipients = recipients(connection, row).await?;
    Ok(mail)
}

type RecipientColumns = (i32, String, String, i32, String, String);

async fn recipients<'c>(executor: impl SqliteExecutor<'c>, row: i64) -> Result<Vec<v1::OutboxRecipient>, sqlx::Error> {
    let rows: Vec<RecipientColumns> = sqlx::query_as(
        "SELECT kind, name, address, state, status, diagnostic FROM outbox_recipient WHERE outbox = ? ORDER BY position",
    )
    .bind(row)
    .fetch_all(executor)
    .await?;
    let recipient = |(kind, name, address, state, status, diagnostic): RecipientColumns| v1::OutboxRecipient {
        address: Some(v1::EmailAddress { name, address }),
        kind,
        state,
        status,
        diagnostic,
    };
    Ok(rows.into_iter().map(recipient).collect())
}

/// The mail as it is sent, and the uid of its instance.
pub(super) async fn raw(readers: &SqlitePool, id: &str) -> Result<Option<(String, Raw)>, sqlx::Error> {
    let row: Option<(String, Option<String>, Option<Vec<u8>>)> = sqlx::query_as(
        "SELECT instance_uid, raw_digest, raw FROM outbox LEFT JOIN outbox_body ON outbox_body.outbox = outbox.id
         WHERE mail = ?",
    )
    .bind(id)
    .fetch_optional(readers)
    .await?;
    Ok(row.map(|(instance, digest, bytes)| (instance, stored(digest, bytes))))
}

pub(super) fn stored(digest: Option<String>, bytes: Option<Vec<u8>>) -> Raw {
    match (digest, bytes) {
        (Some(digest), _) => Raw::Blob(digest),
        (None, Some(bytes)) => Raw::Inline(bytes.into()),
        (None, None) => Raw::None,
    }
}

/// A mail as the pure core sees it, with what its last claim was.
pub(super) struct Under {
    pub(super) row: i64,
    pub(super) token: String,
    pub(super) session: String,
    pub(super) sender: String,
    pub(super) credentials: Vec<u8>,
    pub(super) claimed_at: Micros,
    pub(super) settled: bool,
    /// The claim whose late word is still believed; empty: none.
    pub(super) mark_token: String,
    pub(super) mark_session: String,
    pub(super) standing: Standing,
}

/// What is needed to move a mail to another state. `condition` follows WHERE and has one value.
pub(super) async fn under(
    connection: &mut SqliteConnection,
    condition: &str,
    value: &str,
) -> Result<Option<Under>, sqlx::Error> {
    let query = format!(
        "SELECT id, token, session, sender, credentials, claimed_at, settled, mark_token, mark_session, state, deadline_at,
         looking, marked_at, look_in, since, due_at, deferral_count, sent_at, problem, response FROM outbox
         WHERE {condition}"
    );
    let found = sqlx::query(AssertSqlSafe(query)).bind(value).fetch_optional(&mut *connection).await?;
    let Some(found) = found else { return Ok(None) };
    let row: i64 = found.try_get("id")?;
    let rows: Vec<(String, i32, String, String)> = sqlx::query_as(
        "SELECT address_key, state, status, diagnostic FROM outbox_recipient WHERE outbox = ? ORDER BY position",
    )
    .bind(row)
    .fetch_all(connection)
    .await?;
    let recipient = |(key, state, status, diagnostic)| Recipient {
        key,
        state: RecipientState::try_from(state).unwrap_or_default(),
        status,
        diagnostic,
    };
    let deadline_at: Option<Micros> = found.try_get("deadline_at")?;
    let look_in: String = found.try_get("look_in")?;
    let standing = Standing {
        state: state(found.try_get("state")?),
        claimed: deadline_at.is_some(),
        looking: found.try_get("looking")?,
        marked_at: found.try_get("marked_at")?,
        looked_for: !look_in.is_empty(),
        since: found.try_get("since")?,
        due_at: found.try_get("due_at")?,
        deferrals: found.try_get("deferral_count")?,
        sent_at: found.try_get("sent_at")?,
        problem: problem(found.try_get("problem")?)?,
        response: found.try_get("response")?,
        recipients: rows.into_iter().map(recipient).collect(),
        seed: uint(row),
    };
    Ok(Some(Under {
        row,
        token: found.try_get("token")?,
        session: found.try_get("session")?,
        sender: found.try_get("sender")?,
        credentials: found.try_get("credentials")?,
        claimed_at: found.try_get("claimed_at")?,
        settled: found.try_get("settled")?,
        mark_token: found.try_get("mark_token")?,
        mark_session: found.try_get("mark_session")?,
        standing,
    }))
}

/// Writes where a mail stands now; `before` is where it stood, and whose claims there are now.
pub(super) async fn write(
    connection: &mut SqliteConnection,
    before: &Under,
    standing: &Standing,
    now: Micros,
) -> Result<(), sqlx::Error> {
    for (position, (was, is)) in before.standing.recipients.iter().zip(&standing.recipients).enumerate() {
        if was != is {
            sqlx::query(
                "UPDATE outbox_recipient SET state = ?, status = ?, diagnostic = ? WHERE outbox = ? AND position = ?",
            )
            .bind(is.state as i32)
            .bind(&is.status)
            .bind(&is.diagnostic)
            .bind(before.row)
            .bind(int(position as u64))
            .execute(&mut *connection)
            .await?;
        }
    }
    // Nothing that is heard late changes what has come to its end.
    let ended = matches!(standing.state, OutboxState::Sent | OutboxState::Bounced);
    sqlx::query(
        "UPDATE outbox SET state = ?, pending_count = ?, since = ?, due_at = ?, deferral_count = ?, sent_at = ?,
         problem = ?, response = ?, deadline_at = CASE WHEN ? THEN deadline_at ELSE NULL END, looking = ?, marked_at = ?,
         token = ?, session = ?, settled = ?, mark_token = ?, changed_at = ? WHERE id = ?",
    )
    .bind(standing.state as i32)
    .bind(int(standing.pending() as u64))
    .bind(standing.since)
    .bind(standing.due_at)
    .bind(standing.deferrals)
    .bind(standing.sent_at)
    .bind(standing.problem.as_ref().map(prost::Message::encode_to_vec))
    .bind(&standing.response)
    .bind(standing.claimed)
    .bind(standing.looking)
    .bind(standing.marked_at)
    .bind(&before.token)
    .bind(&before.session)
    .bind(before.settled)
    .bind(if ended { "" } else { before.mark_token.as_str() })
    .bind(now)
    .bind(before.row)
    .execute(connection)
    .await?;
    Ok(())
}
