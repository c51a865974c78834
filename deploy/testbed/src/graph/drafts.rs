//! Drafts, and attachments on their way into them. Values in, values out.

use std::collections::HashMap;

use uuid::Uuid;

use super::{LARGEST_REQUEST, UPLOAD_FROM, answer::Answer, mime::Attachment};

/// Largest attachment that an upload session takes.
const LARGEST_UPLOAD: usize = 150 << 20;

#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) mailbox: String,
    pub(super) message_id: String,
    pub(super) mail: Vec<u8>,
    /// The address that it is from; the mailbox's own at the start.
    pub(super) from: String,
    pub(super) attachments: Vec<Attachment>,
    /// It lies in Sent Items now.
    pub(super) is_sent: bool,
}

#[derive(Debug)]
struct Upload {
    draft: String,
    size: usize,
    attachment: Attachment,
}

/// How far an upload has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The next byte that is to come.
    Next(usize),
    /// It is part of the draft now.
    Done,
}

#[derive(Debug, Default)]
pub(super) struct Drafts {
    drafts: HashMap<String, Draft>,
    uploads: HashMap<String, Upload>,
}

impl Drafts {
    pub(super) fn count(&self) -> usize {
        self.drafts.values().filter(|draft| !draft.is_sent).count()
    }

    /// Adds a draft and returns its id.
    pub(super) fn add(&mut self, draft: Draft) -> String {
        let id = format!("AAMk{}=", Uuid::new_v4().simple());
        self.drafts.insert(id.clone(), draft);
        id
    }

    /// What has this id in a mailbox, sent or not.
    pub(super) fn get(&self, mailbox: &str, id: &str) -> Result<&Draft, Answer> {
        self.drafts.get(id).filter(|draft| draft.mailbox == mailbox).ok_or_else(Answer::no_item)
    }

    /// A draft that can still be changed.
    pub(super) fn unsent(&mut self, mailbox: &str, id: &str) -> Result<&mut Draft, Answer> {
        let unsent = self.drafts.get_mut(id).filter(|draft| draft.mailbox == mailbox && !draft.is_sent);
        unsent.ok_or_else(Answer::no_item)
    }

    pub(super) fn remove(&mut self, mailbox: &str, id: &str) -> Result<(), Answer> {
        self.get(mailbox, id)?;
        self.drafts.remove(id);
        Ok(())
    }

    /// The unsent drafts of a mailbox that have this Message-ID.
    pub(super) fn find(&self, mailbox: &str, message_id: &str) -> Vec<String> {
        let fits = |draft: &Draft| draft.mailbox == mailbox && draft.message_id == message_id && !draft.is_sent;
        self.drafts.iter().filter(|(_, draft)| fits(draft)).map(|(id, _)| id.clone()).collect()
    }

    /// Begins an upload and returns the id of its session.
    pub(super) fn begin(
        &mut self,
        mailbox: &str,
        draft: &str,
        size: usize,
        attachment: Attachment,
    ) -> Result<String, Answer> {
        self.unsent(mailbox, draft)?;
        if size < UPLOAD_FROM {
            let code = "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize";
            return Err(Answer::new(400, code, "Attachment size must be greater than the minimum size."));
        }
        if size > LARGEST_UPLOAD {
            return Err(Answer::new(413, "ErrorAttachmentSizeLimitExceeded", "The attachment is too large."));
        }
        let id = Uuid::new_v4().simple().to_string();
        self.uploads.insert(id.clone(), Upload { draft: draft.to_owned(), size, attachment });
        Ok(id)
    }

    /// Takes a part of an upload: the bytes that `range` (`bytes 0-9/100`) names.
    pub(super) fn put(&mut self, session: &str, range: &str, part: &[u8]) -> Result<Progress, Answer> {
        let upload = self.uploads.get_mut(session).ok_or_else(Answer::no_item)?;
        let wrong = |why: &str| Answer::new(416, "ErrorInvalidRange", why);
        let (first, last, size) = read_range(range).ok_or_else(|| Answer::bad_request("Content-Range is missing."))?;
        let come = upload.attachment.content.len();
        if size != upload.size || last >= size || first != come {
            return Err(wrong(&format!("The next byte is {come} of {}.", upload.size)));
        }
        if part.len() > LARGEST_REQUEST {
            return Err(Answer::request_too_large());
        }
        if part.len() != last + 1 - first {
            return Err(wrong("There are not as many bytes as the range says."));
        }
        upload.attachment.content.extend_from_slice(part);
        let come = upload.attachment.content.len();
        if come < upload.size {
            return Ok(Progress::Next(come));
        }
        let upload = self.uploads.remove(session).ok_or_else(Answer::no_item)?;
        let draft = self.drafts.get_mut(&upload.draft).filter(|draft| !draft.is_sent).ok_or_else(Answer::no_item)?;
        draft.attachments.push(upload.attachment);
        Ok(Progress::Done)
    }

    /// The next byte that is to come.
    pub(super) fn next(&self, session: &str) -> Result<usize, Answer> {
        self.uploads.get(session).map(|upload| upload.attachment.content.len()).ok_or_else(Answer::no_item)
    }
}

/// Reads `bytes 0-9/100`.
fn read_range(range: &str) -> Option<(usize, usize, usize)> {
    let (from_to, size) = range.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = from_to.split_once('-')?;
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last, size.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drafts() -> (Drafts, String) {
        let mut drafts = Drafts::default();
        let (mailbox, message_id) = ("a@b.example".to_owned(), "one@x".to_owned());
        let (mail, from, attachments) = (Vec::new(), mailbox.clone(), Vec::new());
        let draft = Draft { mailbox, message_id, mail, from, attachments, is_sent: false };
        let id = drafts.add(draft);
        (drafts, id)
    }

    #[test]
    fn an_upload_comes_in_order_and_then_is_part_of_the_draft() {
        let (mut drafts, id) = drafts();
        let (size, part) = (UPLOAD_FROM + 2, vec![7; UPLOAD_FROM]);
        let session = drafts.begin("a@b.example", &id, size, Attachment::default()).unwrap();
        let status = |answer: Result<Progress, Answer>| answer.map_err(|answer| answer.status);
        let first = format!("bytes 0-{}/{size}", UPLOAD_FROM - 1);
        let last = format!("bytes {}-{}/{size}", UPLOAD_FROM, UPLOAD_FROM + 1);
        assert_eq!(status(drafts.put(&session, &last, &[8, 9])), Err(416));
        assert_eq!(status(drafts.put(&session, "", &part)), Err(400));
        assert_eq!(status(drafts.put(&session, &first, &[7])), Err(416));
        assert_eq!(status(drafts.put(&session, &first, &part)), Ok(Progress::Next(UPLOAD_FROM)));
        assert_eq!(status(drafts.put(&session, &first, &part)), Err(416));
        assert_eq!(drafts.next(&session), Ok(UPLOAD_FROM));
        assert_eq!(status(drafts.put(&session, &last, &[8, 9])), Ok(Progress::Done));
        assert_eq!(status(drafts.put(&session, &last, &[8, 9])), Err(404));
        assert_eq!(drafts.get("a@b.example", &id).unwrap().attachments[0].content.len(), size);
        assert!(drafts.get("c@b.example", &id).is_err());
    }

    #[test]
    fn a_small_attachment_needs_no_session_and_a_sent_draft_takes_none() {
        let (mut drafts, id) = drafts();
        let refused = drafts.begin("a@b.example", &id, UPLOAD_FROM - 1, Attachment::default()).unwrap_err();
        assert_eq!(refused.status, 400);
        assert_eq!((drafts.count(), drafts.find("a@b.example", "one@x")), (1, vec![id.clone()]));
        drafts.unsent("a@b.example", &id).unwrap().is_sent = true;
        assert_eq!((drafts.count(), drafts.find("a@b.example", "one@x").len()), (0, 0));
        let refused = drafts.begin("a@b.example", &id, UPLOAD_FROM, Attachment::default()).unwrap_err();
        assert_eq!(refused.status, 404);
    }
}
