//! `outbox watch`: mails on their way, then every change.

use std::num::NonZeroU64;

use postroom_proto::v1;

use super::super::Session;
use super::address;
use crate::args::WatchOutbox;
use crate::error::{Error, Kind};
use crate::render::{text, words};

pub(super) async fn watch(session: &mut Session<'_, '_>, args: WatchOutbox) -> Result<(), Error> {
    let mut reached = args.from.map_or(0, NonZeroU64::get);
    let request =
        v1::WatchOutboxRequest { instance: args.instance.clone().unwrap_or_default(), from_revision: reached };
    let mut told = session.client()?.watch_outbox(request).await?;
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
        return Err(session.resumable(failed, &["outbox", "watch"], args.instance.as_deref(), reached));
    }
}

/// An event for people: how far it has come, the mail, where it stands, and what it is about.
fn line(event: &v1::WatchOutboxResponse) -> String {
    let revision = if event.snapshot { "-".to_owned() } else { event.revision.to_string() };
    let Some(mail) = &event.mail else { return String::new() };
    let problem = mail.problem.as_ref().map(|problem| format!("  {}", problem.code)).unwrap_or_default();
    let about = text::line(&format!("{}  {}{problem}", address(mail.from.as_ref()), mail.subject));
    format!("{revision:>8}  {}  {:<8}  {about}\n", text::line(&mail.id), words::outbox_state(mail.state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line_and_a_bookmark_none() {
        let mail = v1::OutboxMail {
            id: "m1".into(),
            state: v1::OutboxState::Bounced.into(),
            subject: "Re: a\nb\u{1b}[2J".into(),
            problem: Some(v1::Problem { code: "BOUNCED".into(), ..Default::default() }),
            ..Default::default()
        };
        let events = [
            v1::WatchOutboxResponse { revision: 0, mail: Some(mail.clone()), snapshot: true },
            v1::WatchOutboxResponse { revision: 7, mail: None, snapshot: false },
            v1::WatchOutboxResponse { revision: 8, mail: Some(mail), snapshot: false },
        ];
        assert_eq!(
            events.iter().map(line).collect::<String>(),
            "       -  m1  bounced     Re: a b\u{fffd}[2J  BOUNCED\n       8  m1  bounced     Re: a b\u{fffd}[2J  BOUNCED\n"
        );
    }
}
