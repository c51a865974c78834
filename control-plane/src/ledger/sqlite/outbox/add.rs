//! Storing a mail: once for each request, and not without end from one address to another.

use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::super::super::outbox::{Mail, NewMail, NotAdded, Writing};
use super::super::super::{Micros, Raw};
use super::super::ROWS;
use super::super::row::{int, uint};
use super::row;
use crate::contact::thread::key;
use crate::outbox::Terms;

/// The time in which mails from one address to another are counted.
const HOUR: Micros = 3600 * 1_000_000;

/// Stores `mail`, or returns the one that was stored under the same request.
pub(super) async fn add(
    connection: &mut SqliteConnection,
    mail: NewMail,
    terms: Terms,
    now: Micros,
) -> Result<Result<Mail, NotAdded>, sqlx::Error> {
    let known: Option<(i64, Vec<u8>, String)> =
        sqlx::query_as("SELECT id, digest, mail FROM outbox WHERE instance_uid = ? AND request_id = ?")
            .bind(&mail.lane.instance_uid)
            .bind(&mail.request_id)
            .fetch_optional(&mut *connection)
            .await?;
    match known {
        Some((row, digest, _)) if digest == mail.digest => return Ok(Ok(row::get_row(connection, row).await?)),
        Some((_, _, mail)) => return Ok(Err(NotAdded::Reused { mail })),
        None => {}
    }
    if let Some(refused) = too_often(connection, &mail.writing(), &terms, now).await? {
        return Ok(Err(refused));
    }
    let row = insert(connection, &mail, now).await?;
    Ok(Ok(row::get_row(connection, row).await?))
}

/// The recipient that was written to most, if that was too often.
pub(super) async fn too_often(
    connection: &mut SqliteConnection,
    writing: &Writing,
    terms: &Terms,
    now: Micros,
) -> Result<Option<NotAdded>, sqlx::Error> {
    let limit = if writing.automatic { terms.breaker_automatic } else { terms.breaker };
    // Rows are in the order of creation, so the last hour is what lies behind a row.
    let before: i64 = sqlx::query_scalar(
        "SELECT coalesce((SELECT id FROM outbox INDEXED BY outbox_created WHERE created_at <= ? ORDER BY created_at DESC,
         id DESC LIMIT 1), 0)",
    )
    .bind(now.saturating_sub(HOUR))
    .fetch_one(&mut *connection)
    .await?;
    let mut most: Option<(String, u64)> = None;
    for chunk in writing.to.chunks(ROWS) {
        let mut count = QueryBuilder::<Sqlite>::new(
            "SELECT address_key, count(*) FROM outbox_recipient INDEXED BY outbox_recipient_address
             JOIN outbox ON outbox.id = outbox_recipient.outbox WHERE outbox_recipient.outbox > ",
        );
        count.push_bind(before).push(" AND address_key IN (");
        let mut list = count.separated(", ");
        for address in chunk {
            list.push_bind(address);
        }
        count.push(") AND from_key = ").push_bind(&writing.from);
        if writing.automatic {
            count.push(" AND automatic = 1");
        }
        count.push(" GROUP BY address_key ORDER BY 2 DESC LIMIT 1");
        let found: Option<(String, i64)> = count.build_query_as().fetch_optional(&mut *connection).await?;
        let found = found.map(|(address, count)| (address, uint(count)));
        most = most.into_iter().chain(found).max_by_key(|(_, count)| *count);
    }
    let most = most.filter(|(_, count)| *count >= u64::from(limit));
    Ok(most.map(|(address, count)| NotAdded::Loop { address, count }))
}

async fn insert(connection: &mut SqliteConnection, mail: &NewMail, now: Micros) -> Result<i64, sqlx::Error> {
    let (digest, raw) = match &mail.raw {
        Raw::Blob(digest) => (Some(digest.as_str()), None),
        Raw::Inline(bytes) => (None, Some(bytes)),
        Raw::None => (None, None),
    };
    let recipients = int(mail.recipients.len() as u64);
    let row: i64 = sqlx::query_scalar(
        "INSERT INTO outbox (mail, instance_uid, instance, queue_uid, queue, lane, contact, request_id, digest, from_name,
         from_address, from_key, subject, message_id, message_key, size_bytes, raw_digest, automatic, recipient_count, created_at, changed_at,
         state, pending_count, since, due_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?) RETURNING id",
    )
    .bind(&mail.id)
    .bind(&mail.lane.instance_uid)
    .bind(&mail.instance)
    .bind(&mail.lane.queue_uid)
    .bind(&mail.queue)
    .bind(mail.lane.key())
    .bind(&mail.contact)
    .bind(&mail.request_id)
    .bind(&mail.digest)
    .bind(&mail.from.name)
    .bind(&mail.from.address)
    .bind(mail.from.address.to_lowercase())
    .bind(&mail.subject)
    .bind(&mail.message_id)
    .bind(key(&mail.message_id))
    .bind(int(mail.size_bytes))
    .bind(digest)
    .bind(mail.automatic)
    .bind(recipients)
    .bind(now)
    .bind(now)
    .bind(recipients)
    .bind(now)
    .bind(now)
    .fetch_one(&mut *connection)
    .await?;
    let numbered: Vec<_> = mail.recipients.iter().enumerate().collect();
    for chunk in numbered.chunks(ROWS) {
        let mut insert = QueryBuilder::<Sqlite>::new(
            "INSERT INTO outbox_recipient (outbox, position, kind, name, address, address_key, state) ",
        );
        insert.push_values(chunk, |mut values, (position, (kind, address))| {
            values
                .push_bind(row)
                .push_bind(int(*position as u64))
                .push_bind(*kind as i32)
                .push_bind(&address.name)
                .push_bind(&address.address)
                .push_bind(address.address.to_lowercase())
                .push_bind(1);
        });
        insert.build().execute(&mut *connection).await?;
    }
    if let Some(raw) = raw {
        sqlx::query("INSERT INTO outbox_body (outbox, raw) VALUES (?, ?)")
            .bind(row)
            .bind(raw.as_ref())
            .execute(connection)
            .await?;
    }
    Ok(row)
}
