//! The audit.

use async_trait::async_trait;
use postroom_proto::convert::to_timestamp;
use postroom_proto::v1::{self, AuditOutcome};
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, QueryBuilder, Row as _, SqliteConnection};

use super::super::audit::{AuditFilter, AuditLog, Begun, Ended, Refused};
use super::super::{Error, Micros};
use super::row::{int, uint};
use super::{Sqlite, reading};

/// Most rows that go in one transaction.
const PIECE: i64 = 5000;

struct EntryRow(v1::AuditEntry);

impl FromRow<'_, SqliteRow> for EntryRow {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let refused: Option<String> = row.try_get("refused")?;
        let ended: Option<String> = row.try_get("reason")?;
        let outcome = match (&refused, &ended) {
            (Some(_), _) => AuditOutcome::Refused,
            (None, None) => AuditOutcome::Unknown,
            (None, Some(reason)) if reason.is_empty() => AuditOutcome::Done,
            (None, Some(_)) => AuditOutcome::Failed,
        };
        Ok(Self(v1::AuditEntry {
            id: row.try_get::<i64, _>("id")?.to_string(),
            time: Some(to_timestamp(row.try_get("at")?)),
            who: row.try_get("who")?,
            role: row.try_get("role")?,
            address: row.try_get("address")?,
            rpc: row.try_get("rpc")?,
            subject: row.try_get("subject")?,
            detail: row.try_get("detail")?,
            outcome: outcome.into(),
            reason: refused.or(ended).unwrap_or_default(),
            message: row.try_get::<Option<String>, _>("message")?.unwrap_or_default(),
            changes: row.try_get::<Option<String>, _>("changes")?.unwrap_or_default(),
            count: uint(row.try_get("count")?),
            last_time: Some(to_timestamp(row.try_get("last_at")?)),
        }))
    }
}

#[async_trait]
impl AuditLog for Sqlite {
    async fn begin(&self, call: Begun) -> Result<i64, Error> {
        let attempts = Refused { last_at: call.at, count: 1, call, reason: String::new() };
        self.write("write the audit", move |c| Box::pin(async move { add(c, &attempts, None).await })).await
    }

    async fn end(&self, id: i64, ended: Ended) -> Result<(), Error> {
        self.write("write the audit", move |c| Box::pin(add_outcome(c, id, ended))).await
    }

    async fn refuse(&self, refused: Vec<Refused>) -> Result<(), Error> {
        self.write("write the audit", move |c| Box::pin(add_refused(c, refused))).await
    }

    async fn list(
        &self,
        filter: &AuditFilter,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<v1::AuditEntry>, Error> {
        let mut select = QueryBuilder::<sqlx::Sqlite>::new(
            "SELECT audit.*, audit_outcome.reason AS reason, audit_outcome.message AS message, \
             audit_outcome.detail AS changes FROM audit LEFT JOIN audit_outcome ON audit_outcome.audit = audit.id \
             WHERE 1 = 1",
        );
        if !filter.who.is_empty() {
            select.push(" AND (who = ").push_bind(&filter.who).push(" OR role = ").push_bind(&filter.who).push(")");
        }
        if !filter.rpc.is_empty() {
            // Its end, from the begin of a name on. Not LIKE, in which % and _ would mean something.
            select.push(" AND substr(rpc, -length(").push_bind(&filter.rpc).push(")) = ").push_bind(&filter.rpc);
            select.push(" AND substr('/' || rpc, -length(").push_bind(&filter.rpc).push(") - 1, 1) IN ('/', '.')");
        }
        if !filter.subject.is_empty() {
            select.push(" AND instr(lower(subject), lower(").push_bind(&filter.subject).push(")) > 0");
        }
        if let Some(since) = filter.since {
            select.push(" AND last_at >= ").push_bind(since);
        }
        if let Some(until) = filter.until {
            select.push(" AND audit.at < ").push_bind(until);
        }
        if filter.refused {
            select.push(" AND (refused IS NOT NULL OR audit_outcome.reason <> '')");
        }
        if let Some(before) = before {
            select.push(" AND id < ").push_bind(before);
        }
        select.push(" ORDER BY id DESC LIMIT ").push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let rows: Vec<EntryRow> =
            select.build_query_as().fetch_all(&self.database.readers).await.map_err(reading("list the audit"))?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }

    async fn forget(&self, since: Micros, refused: u64) -> Result<u64, Error> {
        let mut gone = 0;
        loop {
            let work = self.write("cut off the old audit", move |c| Box::pin(forget(c, since, int(refused))));
            let (piece, more) = work.await?;
            gone += piece;
            if !more {
                return Ok(gone);
            }
        }
    }
}

async fn add(connection: &mut SqliteConnection, attempts: &Refused, refused: Option<&str>) -> Result<i64, sqlx::Error> {
    let call = &attempts.call;
    let done = sqlx::query(
        "INSERT INTO audit (at, who, role, address, rpc, subject, detail, refused, count, last_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(call.at)
    .bind(&call.who)
    .bind(&call.role)
    .bind(&call.address)
    .bind(&call.rpc)
    .bind(&call.subject)
    .bind(&call.detail)
    .bind(refused)
    .bind(int(attempts.count))
    .bind(attempts.last_at)
    .execute(connection)
    .await?;
    Ok(done.last_insert_rowid())
}

async fn add_refused(connection: &mut SqliteConnection, refused: Vec<Refused>) -> Result<(), sqlx::Error> {
    for attempts in &refused {
        add(connection, attempts, Some(&attempts.reason)).await?;
    }
    Ok(())
}

async fn add_outcome(connection: &mut SqliteConnection, id: i64, ended: Ended) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO audit_outcome (audit, at, reason, message, detail) VALUES (?, ?, ?, ?, ?)")
        .bind(id)
        .bind(ended.at)
        .bind(ended.reason)
        .bind(ended.message)
        .bind(ended.detail)
        .execute(connection)
        .await?;
    Ok(())
}

/// Ordering: how far the audit goes back is written down first; the triggers let nothing go that is newer.
async fn forget(connection: &mut SqliteConnection, since: Micros, refused: i64) -> Result<(u64, bool), sqlx::Error> {
    let after: Option<i64> =
        sqlx::query_scalar("SELECT id FROM audit WHERE refused IS NOT NULL ORDER BY id DESC LIMIT 1 OFFSET ?")
            .bind(refused)
            .fetch_optional(&mut *connection)
            .await?;
    sqlx::query("UPDATE audit_kept SET since = max(since, ?), refused_after = max(refused_after, ?)")
        .bind(since)
        .bind(after.unwrap_or(0))
        .execute(&mut *connection)
        .await?;
    let going: Vec<i64> = sqlx::query_scalar(
        "SELECT id FROM (SELECT id FROM audit WHERE at < (SELECT since FROM audit_kept) LIMIT ?1) UNION \
         SELECT id FROM (SELECT id FROM audit WHERE refused IS NOT NULL \
         AND id <= (SELECT refused_after FROM audit_kept) ORDER BY id LIMIT ?1) ORDER BY id LIMIT ?1",
    )
    .bind(PIECE)
    .fetch_all(&mut *connection)
    .await?;
    let Some((first, last)) = going.first().zip(going.last()) else { return Ok((0, false)) };
    // Between the first and the last there may be rows that stay.
    for statement in [
        "DELETE FROM audit_outcome WHERE audit BETWEEN ? AND ? AND \
         (SELECT at FROM audit WHERE id = audit_outcome.audit) < (SELECT since FROM audit_kept)",
        "DELETE FROM audit WHERE id BETWEEN ? AND ? AND (at < (SELECT since FROM audit_kept) \
         OR (refused IS NOT NULL AND id <= (SELECT refused_after FROM audit_kept)))",
    ] {
        sqlx::query(statement).bind(first).bind(last).execute(&mut *connection).await?;
    }
    let gone = going.len() as u64;
    Ok((gone, going.len() as i64 == PIECE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::Location;

    async fn ledger() -> Sqlite {
        Sqlite::open(&Location::Memory).await.unwrap()
    }

    fn call(at: Micros, who: &str, rpc: &str, subject: &str) -> Begun {
        Begun {
            at,
            who: who.into(),
            role: "operator".into(),
            address: "192.0.2.1".into(),
            rpc: format!("postroom.v1.OperatorService/{rpc}"),
            subject: subject.into(),
            detail: r#"{"ratePerMinute":30}"#.into(),
        }
    }

    fn refused(at: Micros, count: u64) -> Refused {
        Refused { call: call(at, "", "StopBacklog", ""), reason: "UNAUTHENTICATED".into(), count, last_at: at + 5 }
    }

    async fn ids(ledger: &Sqlite, filter: &AuditFilter) -> Vec<String> {
        ledger.list(filter, None, 100).await.unwrap().into_iter().map(|entry| entry.id).collect()
    }

    #[tokio::test]
    async fn what_became_of_each_call_is_told_and_lists_are_narrowed() {
        let ledger = ledger().await;
        let done = ledger.begin(call(10, "ada", "ApproveBacklog", "Billing@contoso.example")).await.unwrap();
        ledger.end(done, Ended { at: 11, detail: "{}".into(), ..Ended::default() }).await.unwrap();
        let failed = ledger.begin(call(20, "bob", "StopBacklog", "sales@contoso.example")).await.unwrap();
        let why = Ended { at: 21, reason: "NO_BACKLOG".into(), message: "none".into(), ..Ended::default() };
        ledger.end(failed, why).await.unwrap();
        ledger.begin(call(30, "ada", "StopBacklog", "sales@contoso.example")).await.unwrap();
        ledger.refuse(vec![refused(40, 7)]).await.unwrap();

        let all = ledger.list(&AuditFilter::default(), None, 100).await.unwrap();
        let outcomes: Vec<_> = all.iter().map(|it| (it.id.as_str(), it.outcome(), it.count)).collect();
        use AuditOutcome::{Done, Failed, Refused, Unknown};
        assert_eq!(outcomes, [("4", Refused, 7), ("3", Unknown, 1), ("2", Failed, 1), ("1", Done, 1)]);
        assert_eq!((all[2].reason.as_str(), all[2].message.as_str()), ("NO_BACKLOG", "none"));
        assert_eq!((all[3].changes.as_str(), all[3].address.as_str()), ("{}", "192.0.2.1"));
        for (filter, expected) in [
            (AuditFilter { who: "ada".into(), ..Default::default() }, &["3", "1"][..]),
            (AuditFilter { who: "operator".into(), ..Default::default() }, &["4", "3", "2", "1"][..]),
            (AuditFilter { rpc: "ApproveBacklog".into(), ..Default::default() }, &["1"][..]),
            (AuditFilter { rpc: "OperatorService/StopBacklog".into(), ..Default::default() }, &["4", "3", "2"][..]),
            (AuditFilter { rpc: "Backlog".into(), ..Default::default() }, &[][..]),
            (AuditFilter { rpc: "%".into(), ..Default::default() }, &[][..]),
            (AuditFilter { subject: "billing@".into(), ..Default::default() }, &["1"][..]),
            (AuditFilter { refused: true, ..Default::default() }, &["4", "2"][..]),
            (AuditFilter { since: Some(20), until: Some(40), ..Default::default() }, &["3", "2"][..]),
        ] {
            assert_eq!(ids(&ledger, &filter).await, expected, "{filter:?}");
        }
        let page = ledger.list(&AuditFilter::default(), Some(3), 1).await.unwrap();
        assert_eq!(page[0].id, "2");
    }

    #[tokio::test]
    async fn nothing_that_was_written_is_changed_or_removed() {
        let ledger = ledger().await;
        let id = ledger.begin(call(10, "ada", "StopBacklog", "a")).await.unwrap();
        ledger.end(id, Ended::default()).await.unwrap();
        ledger.refuse(vec![refused(20, 1)]).await.unwrap();
        let before = ledger.list(&AuditFilter::default(), None, 100).await.unwrap();
        for statement in [
            "UPDATE audit SET who = 'eve'",
            "DELETE FROM audit",
            "DELETE FROM audit WHERE refused IS NOT NULL",
            "REPLACE INTO audit SELECT id, at, 'eve', role, address, rpc, subject, detail, refused, count, last_at FROM audit",
            "UPDATE audit_outcome SET reason = 'NOT_FOUND'",
            "DELETE FROM audit_outcome",
            "REPLACE INTO audit_outcome SELECT audit, at, 'NOT_FOUND', message, detail FROM audit_outcome",
            "DELETE FROM audit_kept",
        ] {
            let refused = ledger
                .write("tamper", move |c| Box::pin(async move { sqlx::query(statement).execute(c).await.map(|_| ()) }));
            assert!(refused.await.is_err(), "{statement}");
        }
        assert_eq!(ledger.list(&AuditFilter::default(), None, 100).await.unwrap(), before);
        assert!(ledger.end(id, Ended::default()).await.is_err(), "an outcome is told once");
    }

    #[tokio::test]
    async fn what_is_old_goes_and_of_refusals_what_is_too_much() {
        let ledger = ledger().await;
        for at in 0..10 {
            let id = ledger.begin(call(at, "ada", "StopBacklog", "a")).await.unwrap();
            ledger.end(id, Ended::default()).await.unwrap();
            ledger.refuse(vec![refused(at, 1)]).await.unwrap();
        }
        assert_eq!(ledger.forget(0, 100).await.unwrap(), 0);
        // Of ten refusals the three newest; rows between them stay.
        assert_eq!(ledger.forget(0, 3).await.unwrap(), 7);
        let refused = ids(&ledger, &AuditFilter { refused: true, ..Default::default() }).await;
        assert_eq!((refused.len(), ids(&ledger, &AuditFilter::default()).await.len()), (3, 13));
        assert_eq!(ledger.forget(8, 3).await.unwrap(), 9, "eight calls and the refusal among them");
        let left = ledger.list(&AuditFilter::default(), None, 100).await.unwrap();
        assert!(left.len() == 4 && left.iter().all(|it| it.outcome() != AuditOutcome::Unknown), "{left:?}");
        // An earlier setting brings nothing back, and lets nothing go.
        assert_eq!(ledger.forget(0, 3).await.unwrap(), 0);
    }
}
