//! Reports: decoded, checked against their limits, completed with where the contacts go, and committed.

use std::collections::HashSet;

use postroom_proto::convert::from_timestamp;
use postroom_proto::id::{Epoch, Generation};
use postroom_proto::metric;
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1;
use prost::Message as _;

use super::{Intake, mailbox, session};
use crate::blob::is_digest;
use crate::clock;
use crate::definition::model::MailboxRef;
use crate::ledger::backlog::Progress;
use crate::ledger::known::Sought;
use crate::ledger::outbox::Bounce;
use crate::ledger::{self, Batch, Cursor, Fence, NotCommitted, Raw};
use crate::outbox::state::Recipient;
use crate::telemetry;

/// Most messages of a report, and most settled keys.
const MOST_MESSAGES: usize = 500;
/// Most recipients of a bounce that are looked at.
const MOST_RECIPIENTS: usize = 500;
/// Largest report, encoded.
const MOST_BYTES: usize = 3 * 1024 * 1024;

impl Intake {
    /// Commits a report.
    pub async fn report(&self, request: v1::ReportRequest) -> Result<v1::ReportResponse, Failure> {
        let mailbox = request.mailbox.clone();
        let outcome = self.commit(request).await;
        self.unstored.note(&mailbox, &outcome);
        outcome
    }

    async fn commit(&self, request: v1::ReportRequest) -> Result<v1::ReportResponse, Failure> {
        check_limits(&request)?;
        let session = session(&request.session)?;
        let uid = mailbox("mailbox", &request.mailbox)?;
        let fence = Fence { generation: Generation(request.generation), epoch: Epoch(request.epoch), session };
        let model = self.model.borrow().clone();
        // A mailbox that was taken out of the model has no queue any more; its lease is about to end as well.
        let place = model
            .mailbox(&uid)
            .ok_or_else(|| Failure::new(Reason::LeaseLost, format!("{uid} is not in the model any more")))?;
        let batch = Batch {
            intake: intake(&place),
            mailbox: uid,
            fence,
            id: request.batch_id,
            expected: cursor(request.expected_cursor),
            next: cursor(request.next_cursor),
            messages: request
                .messages
                .into_iter()
                .map(|reported| message(reported, place.queue.max_message_bytes()))
                .collect::<Result<_, _>>()?,
            settled: request.settled_source_keys,
            numbering: request.numbering,
            backlog: request.backlog.map(progress),
        };
        self.check_bodies(&batch).await?;
        let instance = batch.intake.instance_uid.clone();
        let contacts = batch.messages.iter().any(|message| message.disposition == v1::Disposition::Contact);
        let name = batch.intake.instance.clone();
        let response = self.ledger.report(batch, clock::now()).await?.map_err(not_committed)?;
        for outcome in response.outcomes.iter().filter(|outcome| !outcome.already_known) {
            metric::MESSAGES.count(&[&name, &telemetry::word(outcome.disposition().as_str_name(), "DISPOSITION_")]);
        }
        if contacts {
            self.arrivals.raise(&instance);
        }
        Ok(response)
    }

    /// Ordering: bodies are looked for before the commit that names them.
    async fn check_bodies(&self, batch: &Batch) -> Result<(), Failure> {
        for message in &batch.messages {
            self.check_body(message).await?;
        }
        Ok(())
    }

    pub(super) async fn check_body(&self, message: &ledger::Message) -> Result<(), Failure> {
        if let Raw::Blob(digest) = &message.raw
            && !self.blobs.contains(digest).await?
        {
            let text = format!("the body {digest} of {} is not here; upload it first", message.source_key);
            return Err(Failure::new(Reason::BlobMissing, text));
        }
        Ok(())
    }
}

impl Intake {
    /// Which messages of a folder that is numbered anew the ledger has under former keys.
    pub async fn find_known(&self, request: v1::FindKnownRequest) -> Result<v1::FindKnownResponse, Failure> {
        if request.messages.len() > MOST_MESSAGES {
            let text = format!("are {}, at most {MOST_MESSAGES} are taken", request.messages.len());
            return Err(Failure::invalid_field("messages", text));
        }
        let session = session(&request.session)?;
        let uid = mailbox("mailbox", &request.mailbox)?;
        let fence = Fence { generation: Generation(request.generation), epoch: Epoch(request.epoch), session };
        let sought = request.messages.into_iter().map(|message| Sought {
            fingerprint: message.fingerprint,
            identified: message.identified,
            received_at: message.received_time.as_ref().map(from_timestamp),
            size_bytes: message.size_bytes,
        });
        let known = self.ledger.known(&uid, &fence, request.numbering, sought.collect()).await?;
        let known = known.map_err(not_committed)?.into_iter();
        let known = known.map(|row| row.map(|row| row.to_string()).unwrap_or_default()).collect();
        Ok(v1::FindKnownResponse { known })
    }
}

fn check_limits(request: &v1::ReportRequest) -> Result<(), Failure> {
    let invalid = |field: &str, text: String| Err(Failure::invalid_field(field, text));
    if request.messages.len() > MOST_MESSAGES {
        return invalid("messages", format!("are {}, at most {MOST_MESSAGES} are taken", request.messages.len()));
    }
    if request.settled_source_keys.len() > MOST_MESSAGES {
        return invalid("settledSourceKeys", format!("are more than {MOST_MESSAGES}"));
    }
    if request.encoded_len() > MOST_BYTES {
        return invalid("messages", format!("are larger than {MOST_BYTES} bytes together; upload large bodies first"));
    }
    if uuid::Uuid::try_parse(&request.batch_id).is_err() {
        return invalid("batchId", "is not a UUID; choose one for each batch".into());
    }
    let mut keys = HashSet::with_capacity(request.messages.len());
    match request.messages.iter().position(|message| !keys.insert(message.source_key.as_str())) {
        Some(twice) => invalid(&format!("messages[{twice}].sourceKey"), "stands twice in this report".into()),
        None => Ok(()),
    }
}

pub(super) fn intake(place: &MailboxRef<'_>) -> ledger::Intake {
    ledger::Intake {
        instance_uid: place.instance.uid.clone(),
        instance: place.instance.name.clone(),
        queue_uid: place.queue.uid.clone(),
        queue: place.queue.name.clone(),
        address: place.address.email.clone(),
        priority: place.priority(),
        language: place.language().to_owned(),
    }
}

fn progress(wire: v1::BacklogProgress) -> Progress {
    let v1::BacklogProgress { message_count, taken_count, left_count, finished } = wire;
    Progress { message_count, taken_count, left_count, finished }
}

fn cursor(cursor: Option<v1::Cursor>) -> Cursor {
    cursor.map(|c| Cursor { protocol: c.protocol, value: c.value }).unwrap_or_default()
}

/// `limit`: what the queue takes at most, in bytes.
pub(super) fn message(message: v1::ReportedMessage, limit: u64) -> Result<ledger::Message, Failure> {
    let (disposition, kind) = (message.disposition(), message.kind());
    let invalid = |field: &str, text: &str| {
        Err(Failure::invalid_field(format!("messages[{}].{field}", message.source_key), text))
    };
    if message.source_key.is_empty() || message.source_key.len() > 500 {
        return invalid("sourceKey", "must have 1 to 500 bytes");
    }
    if disposition == v1::Disposition::Unspecified {
        return invalid("disposition", "is missing");
    }
    if disposition == v1::Disposition::Filtered {
        return invalid("disposition", "is what people decide, not workers");
    }
    if disposition == v1::Disposition::Contact && (message.content.is_none() || message.raw.is_none()) {
        return invalid("content", "a contact needs its content and its raw message");
    }
    let duplicate_of = match (disposition, message.duplicate_of.parse::<i64>()) {
        (v1::Disposition::Duplicate, Ok(original)) => Some(original),
        (v1::Disposition::Duplicate, Err(_)) => return invalid("duplicateOf", "names no message"),
        _ => None,
    };
    let raw = match message.raw {
        None => Raw::None,
        Some(v1::reported_message::Raw::RawMessage(bytes)) => Raw::Inline(bytes),
        Some(v1::reported_message::Raw::RawDigest(digest)) if is_digest(&digest) => Raw::Blob(digest),
        Some(v1::reported_message::Raw::RawDigest(_)) => {
            return Err(Failure::invalid_field("messages.rawDigest", "is not a SHA-256 in lower-case hexadecimal"));
        }
    };
    let bounce = (kind == v1::ContactKind::Bounce).then_some(message.delivery_report).flatten().and_then(bounce);
    Ok(ledger::Message {
        source_key: message.source_key,
        disposition,
        reason: message.reason,
        received_at: message.received_time.as_ref().map(from_timestamp),
        size_bytes: message.size_bytes,
        limit_bytes: if disposition == v1::Disposition::TooLarge { limit } else { 0 },
        attempt_count: message.attempt_count,
        fingerprint: message.fingerprint,
        raw,
        content: message.content,
        kind,
        bounce,
        duplicate_of,
    })
}

/// `None`: it does not say of which mail it is.
fn bounce(report: v1::DeliveryReport) -> Option<Bounce> {
    let message_id = report.original_message_id.trim().trim_start_matches('<').trim_end_matches('>').to_owned();
    let back = |action| matches!(action, v1::DeliveryAction::Failed | v1::DeliveryAction::Unspecified);
    let failed = report.recipients.is_empty() || report.recipients.iter().any(|it| back(it.action()));
    let recipients = report.recipients.into_iter().filter(|it| back(it.action())).map(|it| Recipient {
        key: it.address.to_lowercase(),
        state: v1::RecipientState::Bounced,
        status: it.status,
        diagnostic: it.diagnostic,
    });
    let recipients = recipients.take(MOST_RECIPIENTS).collect();
    (!message_id.is_empty()).then_some(Bounce { message_id, recipients, failed })
}

fn not_committed(why: NotCommitted) -> Failure {
    match why {
        NotCommitted::LeaseLost => Failure::new(Reason::LeaseLost, why.to_string()),
        NotCommitted::CursorMismatch { ref committed } => Failure::new(Reason::CursorMismatch, why.to_string())
            .with("cursor_protocol", &committed.protocol)
            .with("cursor", data_encoding::BASE64.encode(&committed.value)),
    }
}
