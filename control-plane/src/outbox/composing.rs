//! From a stream of a draft and its files to a stored mail.
//!
//! Ordering: a request that is known is answered with its mail before anything is checked or composed, since the model
//! may have changed since. A large mail is durable as a blob before the row that names it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1::{self, compose_request::Part};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use super::compose::{self, Attachment};
use super::draft::{self, Composition, MOST_ATTACHMENTS};
use super::sending::Sending;
use super::{Terms, guard};
use crate::blob::Blobs;
use crate::clock;
use crate::definition::model::{Instance, Model};
use crate::ledger::outbox::{Mail, NewMail, NotAdded, SharedOutbox, Writing};
use crate::ledger::{Raw, SharedLedger};

/// Largest chunk of a file.
const CHUNK: usize = 256 * 1024;
/// Mails up to this size are kept in the ledger.
const INLINE: usize = 1024 * 1024;
/// Memory for the files of all mails that are composed at one time, in KiB; more where a single mail may need more.
const BUDGET: u32 = 256 * 1024;
/// How long a file waits for memory.
const PATIENCE: Duration = Duration::from_secs(10);

/// Composes mails. Cheap to share.
#[derive(Clone)]
pub struct Composer {
    outbox: SharedOutbox,
    ledger: SharedLedger,
    blobs: Blobs,
    model: watch::Receiver<Arc<Model>>,
    sending: Sending,
    terms: Terms,
    memory: Arc<Semaphore>,
    /// All of that, in KiB.
    budget: u32,
}

/// A file that has come, and the memory that it takes.
struct Taken {
    attachment: Attachment,
    /// What was said of it.
    header: v1::DraftAttachment,
    memory: OwnedSemaphorePermit,
}

impl Composer {
    /// Mails go to `outbox` and, where they are large, to `blobs`; `ledger` knows the contacts that are answered.
    pub fn new(
        outbox: SharedOutbox,
        ledger: SharedLedger,
        blobs: Blobs,
        model: watch::Receiver<Arc<Model>>,
        sending: Sending,
        terms: Terms,
    ) -> Self {
        let budget = budget(&terms);
        let memory = Arc::new(Semaphore::new(budget as usize));
        Self { outbox, ledger, blobs, model, sending, terms, memory, budget }
    }

    /// Stores a mail of `instance`; a `reply` answers the contact that its draft names. `parts` are what follows the
    /// draft.
    pub async fn compose(
        &self,
        instance: Arc<Instance>,
        mut draft: v1::Draft,
        reply: bool,
        parts: impl Stream<Item = Result<v1::ComposeRequest, tonic::Status>> + Unpin,
    ) -> Result<Mail, Failure> {
        let request_id = uuid::Uuid::try_parse(&draft.request_id)
            .map_err(|_| Failure::invalid_field("requestId", "is not a UUID; choose one for each mail"))?
            .to_string();
        // However it is written, it is the same request.
        draft.request_id.clone_from(&request_id);
        let known = self.outbox.stored(&instance.uid, &request_id).await?;
        let composition = match &known {
            Some(_) => None,
            None => Some(self.check(&instance, draft.clone(), reply).await?),
        };
        let files = self.take_files(parts).await?;
        let digest = digest(&draft, reply, &files);
        let (Some(composition), None) = (composition, &known) else {
            return match known {
                Some((stored, mail)) if stored == digest => Ok(mail),
                Some((_, mail)) => Err(reused(&mail.mail.id)),
                // Invariant: what is not known was checked.
                None => Err(Failure::new(Reason::Internal, "a draft was neither known nor checked")),
            };
        };
        self.store(composition, request_id, digest, files).await
    }

    async fn check(&self, instance: &Instance, draft: v1::Draft, reply: bool) -> Result<Composition, Failure> {
        let contact = match (reply, draft.contact.as_str()) {
            (true, id) => {
                let found = self.ledger.contact(id).await?.filter(|(uid, _)| *uid == instance.uid);
                let unknown = || Failure::new(Reason::NotFound, format!("there is no contact {id:?} to be answered"));
                Some(found.ok_or_else(unknown)?.1)
            }
            (false, "") => None,
            (false, _) => {
                return Err(Failure::invalid_field(
                    "contact",
                    "names a contact, which only a reply answers; leave it out",
                ));
            }
        };
        let model = self.model.borrow().clone();
        let composition = draft::check(draft, instance, contact.as_ref(), &model)?;
        if composition.automatic {
            let recipients: Vec<_> = composition.recipients.iter().map(|(_, address)| address).collect();
            if let Some(text) = guard::refusal(contact.as_ref(), &recipients) {
                return Err(Failure::new(Reason::MailLoop, text));
            }
        }
        Ok(composition)
    }

    /// Takes in the files that follow a draft.
    async fn take_files(
        &self,
        mut parts: impl Stream<Item = Result<v1::ComposeRequest, tonic::Status>> + Unpin,
    ) -> Result<Vec<Taken>, Failure> {
        let (mut files, mut whole) = (Vec::<Taken>::new(), 0u64);
        while let Some(part) = next(&mut parts).await? {
            match part {
                Part::Draft(_) => return Err(Failure::invalid_field("draft", "stands only in the first request")),
                Part::Attachment(header) => {
                    check_complete(&files)?;
                    whole = whole.saturating_add(compose::encoded_bytes(header.size_bytes));
                    files.push(self.begin(header, files.len(), whole).await?);
                }
                Part::Chunk(chunk) => take_chunk(&mut files, &chunk)?,
            }
        }
        check_complete(&files)?;
        Ok(files)
    }

    async fn begin(&self, header: v1::DraftAttachment, index: usize, whole: u64) -> Result<Taken, Failure> {
        let media_type = draft::check_attachment(index, &header)?;
        let size = header.size_bytes;
        let field = |name: &str| format!("attachments[{index}].{name}");
        if index >= MOST_ATTACHMENTS {
            return Err(Failure::invalid_field("attachments", format!("are more than {MOST_ATTACHMENTS}")));
        }
        if size > self.terms.max_attachment_bytes {
            let text = format!("is {size}; at most {} bytes are taken", self.terms.max_attachment_bytes);
            return Err(Failure::invalid_field(field("sizeBytes"), text));
        }
        self.check_size(whole)?;
        let need = need(size).clamp(1, self.budget);
        let memory = timeout(PATIENCE, self.memory.clone().acquire_many_owned(need)).await;
        let Ok(Ok(memory)) = memory else {
            let text = "too many large mails are composed at the same time; try again";
            return Err(Failure::new(Reason::TooMany, text));
        };
        let attachment = Attachment {
            name: header.name.trim().to_owned(),
            media_type,
            content_id: header.content_id.clone(),
            bytes: Vec::with_capacity(usize::try_from(size).unwrap_or(0)),
        };
        Ok(Taken { attachment, header, memory })
    }

    fn check_size(&self, bytes: u64) -> Result<(), Failure> {
        let most = self.terms.max_mail_bytes;
        if bytes <= most {
            return Ok(());
        }
        let text = format!("make a mail of {bytes} bytes as it is sent; at most {most} are taken");
        Err(Failure::invalid_field("attachments", text))
    }

    async fn store(
        &self,
        mail: Composition,
        request_id: String,
        digest: Vec<u8>,
        files: Vec<Taken>,
    ) -> Result<Mail, Failure> {
        let id = uuid::Uuid::now_v7().simple().to_string();
        let domain = mail.from.address.rsplit_once('@').map_or("localhost", |(_, domain)| domain);
        let message_id = format!("{id}@{domain}");
        let now = clock::now();
        // What is refused must leave nothing behind; it is asked once more when the mail is stored.
        let writing = Writing::new(&mail.from, &mail.recipients, mail.automatic);
        if let Some(why) = self.outbox.too_often(&writing, &self.terms, now).await? {
            return Err(not_added(why));
        }
        // The memory is given back once the mail is stored.
        let (attachments, memory): (Vec<_>, Vec<_>) = files.into_iter().map(|it| (it.attachment, it.memory)).unzip();
        let (composition, named) = (mail.clone(), message_id.clone());
        // Encoding tens of megabytes takes a while.
        let composed = tokio::task::spawn_blocking(move || compose::compose(&composition, &named, attachments, now));
        let bytes = composed.await.map_err(|error| Failure::new(Reason::Internal, error.to_string()))?;
        let size_bytes = bytes.len() as u64;
        self.check_size(size_bytes)?;
        let raw = self.keep(bytes.into()).await?;
        drop(memory);
        let new = NewMail {
            id,
            lane: mail.lane,
            instance: mail.instance,
            queue: mail.queue,
            contact: mail.contact,
            request_id,
            digest,
            from: mail.from,
            recipients: mail.recipients,
            subject: mail.subject,
            message_id,
            size_bytes,
            raw,
            automatic: mail.automatic,
        };
        let added = self.outbox.add(new, &self.terms, clock::now()).await?;
        self.sending.raise();
        added.map_err(not_added)
    }

    /// Keeps the bytes: small ones are for the ledger, others are a blob.
    async fn keep(&self, bytes: Bytes) -> Result<Raw, Failure> {
        if bytes.len() <= INLINE {
            return Ok(Raw::Inline(bytes));
        }
        let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(&bytes));
        let mut upload = self.blobs.upload(&digest, bytes.len() as u64).await?;
        for from in (0..bytes.len()).step_by(INLINE) {
            upload.push(bytes.slice(from..bytes.len().min(from + INLINE))).await?;
        }
        upload.finish().await?;
        Ok(Raw::Blob(digest))
    }
}

/// Everything that a caller sent for a mail, but not how it cut that into requests.
fn digest(draft: &v1::Draft, reply: bool, files: &[Taken]) -> Vec<u8> {
    let mut hash = Sha256::new();
    let mut put = |part: &[u8]| {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    };
    put(&[u8::from(reply)]);
    put(&draft.encode_to_vec());
    for file in files {
        put(&file.header.encode_to_vec());
        put(&file.attachment.bytes);
    }
    hash.finalize().to_vec()
}

fn take_chunk(files: &mut [Taken], chunk: &[u8]) -> Result<(), Failure> {
    if chunk.len() > CHUNK {
        return Err(Failure::invalid_field("chunk", format!("is longer than {CHUNK} bytes")));
    }
    let file = files.last_mut().ok_or_else(|| Failure::invalid_field("chunk", "comes before any attachment"))?;
    let bytes = &mut file.attachment.bytes;
    if (bytes.len() + chunk.len()) as u64 > file.header.size_bytes {
        return Err(sized_otherwise(file));
    }
    bytes.extend_from_slice(chunk);
    Ok(())
}

fn check_complete(files: &[Taken]) -> Result<(), Failure> {
    match files.last() {
        Some(file) if file.attachment.bytes.len() as u64 != file.header.size_bytes => Err(sized_otherwise(file)),
        _ => Ok(()),
    }
}

fn sized_otherwise(file: &Taken) -> Failure {
    let text = format!("of {:?} is {}, and another number of bytes came", file.attachment.name, file.header.size_bytes);
    Failure::invalid_field("attachments.sizeBytes", text)
}

async fn next(
    parts: &mut (impl Stream<Item = Result<v1::ComposeRequest, tonic::Status>> + Unpin),
) -> Result<Option<Part>, Failure> {
    match parts.next().await {
        None => Ok(None),
        Some(Ok(request)) => {
            let part =
                request.part.ok_or_else(|| Failure::invalid_field("part", "of a request of the stream is missing"));
            part.map(Some)
        }
        // The caller went away in the middle; nobody is left to read the answer.
        Some(Err(status)) => Err(Failure::invalid_field("attachments", format!("broke off: {status}"))),
    }
}

/// Memory that a file of this size takes while its mail is composed, in KiB: as it came, encoded, and in the mail.
fn need(size: u64) -> u32 {
    u32::try_from(size.saturating_mul(33).div_ceil(10 * 1024)).unwrap_or(u32::MAX)
}

/// Memory for the files of all mails that are composed at one time, in KiB. A mail of the largest size can be composed,
/// of however many files it is made: four bytes of it are three of a file.
fn budget(terms: &Terms) -> u32 {
    let most = u32::try_from(MOST_ATTACHMENTS).unwrap_or(u32::MAX);
    need(terms.max_mail_bytes / 4 * 3).saturating_add(most).max(BUDGET)
}

fn not_added(why: NotAdded) -> Failure {
    match why {
        NotAdded::Reused { mail } => reused(&mail),
        NotAdded::Loop { address, count } => {
            let text = format!(
                "{address} was written to {count} times from this address within an hour: two machines may be \
                 answering each other; look at the correspondence, then send again later"
            );
            Failure::new(Reason::MailLoop, text).with("address", address).with("count", count.to_string())
        }
    }
}

fn reused(mail: &str) -> Failure {
    let text = format!("the request id was used for another mail, {mail}; choose a new one for a new mail");
    Failure::new(Reason::RequestReused, text).with("mail", mail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_of_the_largest_size_can_always_be_composed() {
        for max_mail_bytes in [1, 100 * 1024 * 1024, 150_000_000, 1 << 30] {
            let terms = Terms { max_mail_bytes, ..Terms::default() };
            for files in [1, 7, MOST_ATTACHMENTS as u64] {
                // The largest files of one size that fit together.
                let size = (0..64).rev().fold(0u64, |size, bit| {
                    let larger = size | 1 << bit;
                    let fits = compose::encoded_bytes(larger).checked_mul(files).is_some_and(|it| it <= max_mail_bytes);
                    if fits { larger } else { size }
                });
                let all: u64 = (0..files).map(|_| u64::from(need(size))).sum();
                assert!(all <= budget(&terms).into(), "{files} files of {size} need {all}");
            }
        }
    }
}
