//! `contact watch`: those that there are, then every change.

use std::num::NonZeroU64;

use postroom_proto::v1;
use postroom_proto::v1::watch_contacts_response::Event;

use super::super::Session;
use super::{from, subject};
use crate::args::WatchContacts;
use crate::error::{Error, Kind};
use crate::render::{text, words};

pub(super) async fn watch(session: &mut Session<'_, '_>, args: WatchContacts) -> Result<(), Error> {
    let mut reached = args.from.map_or(0, NonZeroU64::get);
    let request =
        v1::WatchContactsRequest { instance: args.instance.clone().unwrap_or_default(), from_revision: reached };
    let mut told = session.client()?.watch_contacts(request).await?;
    loop {
        let failed = match told.next().await {
            Ok(Some(event)) => {
                reached = reached.max(event.revision);
                session.show_item(&event, line)?;
                continue;
            }
            Ok(None) => Error::new(Kind::Unavailable, "the control plane has ended the watch"),
            Err(error) => error.into(),
        };
        return Err(session.resumable(failed, &["contact", "watch"], args.instance.as_deref(), reached));
    }
}

/// An event for people: how far it has come, the contact, where it stands, and what it is about.
fn line(event: &v1::WatchContactsResponse) -> String {
    let revision = if event.snapshot { "-".to_owned() } else { event.revision.to_string() };
    match &event.event {
        Some(Event::Contact(contact)) => {
            let state = words::contact_state(contact.state);
            let about = text::line(&format!("{}  {}  {}", contact.queue, from(contact), subject(contact)));
            format!("{revision:>8}  {}  {state:<9}  {about}\n", text::line(&contact.id))
        }
        Some(Event::Left(id)) => format!("{revision:>8}  {}  left\n", text::line(id)),
        // They are for programs; for people nothing has happened.
        Some(Event::Bookmark(_)) | None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let contact = v1::Contact {
            id: "c1".into(),
            state: v1::ContactState::Dead.into(),
            queue: "Billing".into(),
            content: Some(v1::ContactContent { subject: "a\nb\u{1b}[2J".into(), ..Default::default() }),
            ..Default::default()
        };
        let event = |revision, snapshot, event| v1::WatchContactsResponse { revision, snapshot, event: Some(event) };
        let shown: String = [
            event(0, true, Event::Contact(contact.clone())),
            event(7, false, Event::Bookmark(v1::Bookmark {})),
            event(8, false, Event::Contact(contact)),
            event(9, false, Event::Left("c1".into())),
        ]
        .iter()
        .map(line)
        .collect();
        assert_eq!(
            shown,
            "       -  c1  dead       Billing    a b\u{fffd}[2J\n       8  c1  dead       Billing    a b\u{fffd}[2J\n       9  c1  left\n"
        );
    }
}
