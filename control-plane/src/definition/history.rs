//! Revisions of the model: what each changed, and what moved since somebody looked.

use std::collections::HashMap;

use postroom_proto::convert::to_timestamp;
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1;

use super::object::{self, Definition};
use super::tree::{self, Entry, Head, ReadError};
use super::{fields, view::Definitions};
use crate::store::{Store, key};

/// Most revisions of a page.
pub const PAGE: usize = 100;
/// Revisions of a page when the caller names no number.
pub const DEFAULT_PAGE: usize = 20;
/// Most revisions and most definitions that a refusal names.
const NAMED: usize = 5;

/// The revisions with these numbers, each with what it changed; those that do not exist are missing. Newest first, one
/// after the other, is cheapest: of neighbours, each is read once.
pub async fn revisions(definitions: &Definitions, numbers: &[u64]) -> Result<Vec<v1::Revision>, ReadError> {
    let _reading = definitions.changing().await;
    listed(definitions, numbers).await
}

async fn listed(definitions: &Definitions, numbers: &[u64]) -> Result<Vec<v1::Revision>, ReadError> {
    let store = definitions.store();
    let mut known: Option<(u64, HashMap<String, Entry>)> = None;
    let mut found = Vec::with_capacity(numbers.len());
    for number in numbers {
        let Some(head) = head(store, *number).await? else { continue };
        let new = match known.take() {
            Some((revision, entries)) if revision == head.revision => entries,
            _ => entries(store, Some(&head)).await?,
        };
        let parent = self::head(store, head.parent).await?;
        let old = entries(store, parent.as_ref()).await?;
        let changes = compare(store, &old, &new).await?;
        known = Some((head.parent, old));
        found.push(revision(&head, changes));
    }
    Ok(found)
}

/// What differs between two revisions; 0 is the empty model. `None`: there is no such revision.
pub(super) async fn between(store: &dyn Store, old: u64, new: u64) -> Result<Option<Vec<v1::Change>>, ReadError> {
    let (from, to) = (head(store, old).await?, head(store, new).await?);
    if (from.is_none() && old != 0) || (to.is_none() && new != 0) {
        return Ok(None);
    }
    let (from, to) = (entries(store, from.as_ref()).await?, entries(store, to.as_ref()).await?);
    compare(store, &from, &to).await.map(Some)
}

/// What differs between two revisions for the wire; a new one of 0 is the newest.
pub async fn changes(
    definitions: &Definitions,
    request: &v1::CompareRevisionsRequest,
) -> Result<v1::CompareRevisionsResponse, Failure> {
    let (old_revision, mut new_revision) = (request.old_revision, request.new_revision);
    if new_revision == 0 {
        new_revision = definitions.model().revision();
    }
    let _reading = definitions.changing().await;
    let changes = between(definitions.store(), old_revision, new_revision).await?;
    let changes = changes.ok_or_else(|| no_revision(old_revision.max(new_revision), definitions))?;
    Ok(v1::CompareRevisionsResponse { old_revision, new_revision, changes })
}

pub(super) fn no_revision(asked: u64, definitions: &Definitions) -> Failure {
    let newest = definitions.model().revision();
    Failure::new(Reason::NotFound, format!("there is no revision {asked} of the model; the newest is {newest}"))
}

/// The head of a revision as it was recorded.
pub(super) async fn head(store: &dyn Store, number: u64) -> Result<Option<Head>, ReadError> {
    let at = key::model_revision(number);
    match store.get(&at).await? {
        Some(entry) => Ok(Some(object::decode(&at, &entry.value)?)),
        None => Ok(None),
    }
}

/// The revision that a request made, if it was made after `seen`.
pub(super) async fn made_by(
    store: &dyn Store,
    request: &str,
    seen: u64,
    newest: u64,
) -> Result<Option<Head>, ReadError> {
    if request.is_empty() {
        return Ok(None);
    }
    // A caller repeats at once, so it is among the last.
    for number in (seen + 1..=newest).rev().take(PAGE) {
        if let Some(head) = head(store, number).await?.filter(|head| head.request == request) {
            return Ok(Some(head));
        }
    }
    Ok(None)
}

/// The refusal of an apply that was planned on an older revision: what moved since, in which revision and by whom.
pub(super) async fn moved(definitions: &Definitions, seen: u64, newest: u64) -> Result<Failure, ReadError> {
    let mut message = format!("the model moved from revision {seen} to {newest}: ");
    let numbers: Vec<u64> = (seen + 1..=newest).rev().take(NAMED).collect();
    if seen > newest {
        message = format!("the model is at revision {newest}, older than the revision {seen} that was named; ");
    } else {
        let mut told: Vec<String> = listed(definitions, &numbers).await?.iter().map(tell).collect();
        told.reverse();
        if newest - seen > NAMED as u64 {
            told.insert(0, format!("{} earlier revisions", newest - seen - NAMED as u64));
        }
        message += &told.join("; ");
        message += ". ";
    }
    message += "Look at it, then apply again";
    Ok(Failure::new(Reason::EtagMismatch, message).with("revision", newest.to_string()))
}

fn tell(revision: &v1::Revision) -> String {
    let verb = |change: &v1::Change| match change.kind() {
        v1::change::Kind::Create => "created",
        v1::change::Kind::Delete => "removed",
        v1::change::Kind::Update | v1::change::Kind::Unspecified => "updated",
    };
    let name = |change: &v1::Change| match change.noun.as_str() {
        object::SYSTEM => format!("{} {}", verb(change), change.noun),
        _ => format!("{} {} {:?}", verb(change), change.noun, change.name),
    };
    let mut named: Vec<String> = revision.changes.iter().take(NAMED).map(name).collect();
    if revision.changes.len() > NAMED {
        named.push(format!("{} more", revision.changes.len() - NAMED));
    }
    let time = revision.create_time.map(|time| time.to_string()).unwrap_or_default();
    format!("revision {} by {} at {time} {}", revision.revision, revision.author, named.join(", "))
}

fn revision(head: &Head, changes: Vec<v1::Change>) -> v1::Revision {
    v1::Revision {
        revision: head.revision,
        create_time: Some(to_timestamp(head.time)),
        author: head.author.clone(),
        rollback_of: head.rollback_of,
        changes,
    }
}

/// By uid. Of no head: nothing.
async fn entries(store: &dyn Store, head: Option<&Head>) -> Result<HashMap<String, Entry>, ReadError> {
    let Some(head) = head else { return Ok(HashMap::new()) };
    let (entries, _) = tree::entries(store, head).await?;
    Ok(entries.into_iter().map(|entry| (entry.uid.clone(), entry)).collect())
}

/// Reads only what differs.
async fn compare(
    store: &dyn Store,
    old: &HashMap<String, Entry>,
    new: &HashMap<String, Entry>,
) -> Result<Vec<v1::Change>, ReadError> {
    let mut uids: Vec<&String> = old.keys().chain(new.keys().filter(|uid| !old.contains_key(*uid))).collect();
    uids.retain(|uid| old.get(*uid).map(|it| &it.digest) != new.get(*uid).map(|it| &it.digest));
    let mut changes = Vec::with_capacity(uids.len());
    for uid in uids {
        let before = definition(store, old.get(uid)).await?;
        let after = definition(store, new.get(uid)).await?;
        let kind = before.as_ref().or(after.as_ref()).map(Definition::kind);
        changes.extend(fields::diff(before.as_ref(), after.as_ref()).map(|change| (kind, change)));
    }
    changes.sort_by(|(a, x), (b, y)| (a, &x.name).cmp(&(b, &y.name)));
    Ok(changes.into_iter().map(|(_, change)| change).collect())
}

async fn definition(store: &dyn Store, entry: Option<&Entry>) -> Result<Option<Definition>, ReadError> {
    match entry {
        Some(entry) => tree::definition(store, entry).await.map(Some),
        None => Ok(None),
    }
}
