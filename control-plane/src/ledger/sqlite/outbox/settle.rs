//! Everything that moves a mail to another state, by the rules of [`crate::outbox::state`].

use sqlx::SqliteConnection;

use postroom_proto::v1::OutboxState;

use super::super::super::Micros;
use super::super::super::outbox::{Claim, Decided, NotSettled};
use super::load::Charged;
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
    let Some(mut under) = row::under(connection, "mail = ?", &claim.mail).await? else {
        return Ok(Err(NotSettled::ClaimLost));
    };
    if under.token != claim.token || under.session != claim.session.as_str() {
        return settle_late(connection, under, claim, said, terms, now).await;
    }
    if under.settled {
        return Ok(Ok(under.standing.state));
    }
    // Whoever handed it over and is late still knows best, as long as nobody has done anything else with it.
    let late = !under.standing.claimed;
    if late && under.standing.state != OutboxState::Unknown {
        return settle_late(connection, under, claim, said, terms, now).await;
    }
    let deferrals = load::deferrals(connection, &under).await?;
    let problem = said.problem.clone();
    let (after, toll) = match under.standing.clone().settle(said, deferrals, &terms, now) {
        Ok(settled) => settled,
        Err(wrong) => return Ok(Err(NotSettled::Verdict(wrong))),
    };
    // Its recipients were charged for when it lapsed; its data may have been handed over since.
    let toll = if late { Toll { recipients: 0, ..toll } } else { toll };
    load::charge(connection, Charged { under: &under, toll, problem }, &terms, now).await?;
    under.settled = true;
    if !under.standing.looking {
        under.mark_token.clear();
    }
    row::write(connection, &under, &after, now).await?;
    Ok(Ok(after.state))
}

/// Takes the word of whoever handed a mail over when his claim is over already: that it was sent, as long as nobody else
/// hands it over. That ends a look for it.
async fn settle_late(
    connection: &mut SqliteConnection,
    mut under: Under,
    claim: Claim,
    said: Settlement,
    terms: Terms,
    now: Micros,
) -> Result<Result<OutboxState, NotSettled>, sqlx::Error> {
    let his = !under.mark_token.is_empty() && under.mark_token == claim.token;
    if !his || under.mark_session != claim.session.as_str() {
        return Ok(Err(NotSettled::ClaimLost));
    }
    let Some((after, toll)) = under.standing.clone().settle_late(said, &terms, now) else {
        return Ok(Err(NotSettled::ClaimLost));
    };
    load::charge(connection, Charged { under: &under, toll, problem: None }, &terms, now).await?;
    // His is the last claim again, so that he may repeat it, and who looked for the mail has lost his.
    (under.token, under.session, under.settled) = (claim.token, claim.session.as_str().to_owned(), true);
    under.mark_token.clear();
    row::write(connection, &under, &after, now).await?;
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
        load::charge(connection, Charged { under: &under, toll, problem: None }, &terms, now).await?;
        row::write(connection, &under, &after, now).await?;
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
    let Some(mut under) = row::under(connection, "mail = ?", &id).await? else { return Ok(Decided::Unknown) };
    match under.standing.clone().decide(decision, now) {
        Err(wrong) => return Ok(Decided::Refused(under.standing.state, wrong)),
        Ok(None) => {}
        Ok(Some(after)) => {
            if after.pending() > under.standing.pending() {
                // What its former worker may still say is not of all who wait for it now.
                under.mark_token.clear();
            }
            row::write(connection, &under, &after, now).await?;
        }
    }
    Ok(Decided::Done(Box::new(row::get_row(connection, under.row).await?)))
}
