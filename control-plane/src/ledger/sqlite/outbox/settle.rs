//! Everything that moves a mail to another state, by the rules of [`crate::outbox::state`].

use sqlx::SqliteConnection;

use postroom_proto::v1::OutboxState;

use super::super::super::Micros;
use super::super::super::outbox::{Claim, Decided, NotSettled};
use super::row::Under;
use super::{load, row};
use crate::outbox::Terms;
use crate::outbox::state::{Decision, Settlement, Toll};

/// Most claims that are ended in one transaction.
const LAPSED: i64 = 500;

/// Takes what a worker says of an attempt.
pub(super) async fn settle(
    connection: &mut SqliteConnection,
    claim: Claim,
    said: Settlement,
    terms: Terms,
    now: Micros,
) -> Result<Result<OutboxState, NotSettled>, sqlx::Error> {
    let found = row::under(connection, "mail = ?", &claim.mail).await?;
    let ours = |under: &Under| under.token == claim.token && under.session == claim.session.as_str();
    let Some(under) = found.filter(ours) else { return Ok(Err(NotSettled::ClaimLost)) };
    if under.settled {
        return Ok(Ok(under.standing.state));
    }
    // Whoever handed it over and is late still knows best, as long as nobody has done anything else with it.
    let late = !under.standing.claimed;
    if late && under.standing.state != OutboxState::Unknown {
        return Ok(Err(NotSettled::ClaimLost));
    }
    let deferrals = load::deferrals(connection, &under.sender).await?;
    let (after, toll) = match under.standing.clone().settle(said, deferrals, &terms, now) {
        Ok(settled) => settled,
        Err(wrong) => return Ok(Err(NotSettled::Verdict(wrong))),
    };
    // Its lapse was charged for.
    let toll = if late { Toll { handed_over: false, recipients: 0, ..toll } } else { toll };
    load::charge(connection, &under.sender, &toll, after.problem.as_ref(), &terms, now).await?;
    row::write(connection, &under, &after, true, now).await?;
    Ok(Ok(after.state))
}

/// Ends the claims whose time is over; how many.
pub(super) async fn lapse(connection: &mut SqliteConnection, terms: Terms, now: Micros) -> Result<usize, sqlx::Error> {
    let mails: Vec<String> = sqlx::query_scalar(
        "SELECT mail FROM outbox INDEXED BY outbox_deadline WHERE deadline_at <= ? ORDER BY deadline_at LIMIT ?",
    )
    .bind(now)
    .bind(LAPSED)
    .fetch_all(&mut *connection)
    .await?;
    for mail in &mails {
        let Some(under) = row::under(connection, "mail = ?", mail).await? else { continue };
        let (after, toll) = under.standing.clone().lapse(&terms, now);
        load::charge(connection, &under.sender, &toll, None, &terms, now).await?;
        row::write(connection, &under, &after, false, now).await?;
    }
    Ok(mails.len())
}

/// Does what somebody decided about a mail.
pub(super) async fn decide(
    connection: &mut SqliteConnection,
    id: String,
    instance_uid: Option<String>,
    decision: Decision,
    now: Micros,
) -> Result<Decided, sqlx::Error> {
    let of: Option<String> = sqlx::query_scalar("SELECT instance_uid FROM outbox WHERE mail = ?")
        .bind(&id)
        .fetch_optional(&mut *connection)
        .await?;
    if of.is_none_or(|of| instance_uid.is_some_and(|only| only != of)) {
        return Ok(Decided::Unknown);
    }
    let Some(under) = row::under(connection, "mail = ?", &id).await? else { return Ok(Decided::Unknown) };
    match under.standing.clone().decide(decision, now) {
        Err(wrong) => return Ok(Decided::Refused(under.standing.state, wrong)),
        Ok(None) => {}
        Ok(Some(after)) => {
            row::write(connection, &under, &after, under.settled, now).await?;
            if matches!(decision, Decision::Retry { .. }) {
                // Whoever tries it at once has mended what was wrong with its mailbox, or finds out that he has not.
                sqlx::query("UPDATE outbox_sender SET not_before = 0 WHERE sender = ?")
                    .bind(&under.sender)
                    .execute(&mut *connection)
                    .await?;
            }
        }
    }
    Ok(Decided::Done(Box::new(row::get_row(connection, under.row).await?)))
}
