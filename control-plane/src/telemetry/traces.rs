//! What the control plane does to a contact, as parts of its trace.
//!
//! A batch is one call, and each contact of it has a trace of its own: its part is linked to the call's.

use std::time::SystemTime;

use http::Extensions;
use postroom_proto::trace::{self, Span, SpanContext, identity};
use postroom_proto::v1;

/// The work on a call: since when, and of which trace it is a part.
#[derive(Debug, Clone)]
pub struct Work {
    begun: SystemTime,
    context: Option<SpanContext>,
}

/// The part of its caller's trace that a call is, among its extensions.
#[derive(Debug, Clone)]
pub struct Traced(pub SpanContext);

impl Work {
    /// Begins now.
    pub fn of(extensions: &Extensions) -> Self {
        let context = extensions.get::<Traced>().map(|traced| traced.0.clone());
        Self { begun: SystemTime::now(), context }
    }

    fn part(&self, of: &SpanContext, name: &'static str) -> Option<Span> {
        Some(trace::part(of, name)?.since(self.begun).linked(self.context.as_ref()))
    }

    /// Messages became contacts; the worker is told their traces.
    pub fn reported(&self, mailbox: &str, response: &mut v1::ReportResponse) {
        for outcome in response.outcomes.iter_mut().filter(|outcome| !outcome.already_known) {
            let Some(of) = trace::of_contact(&outcome.contact) else { continue };
            outcome.traceparent = identity::header(&of);
            if let Some(span) = self.part(&of, "report") {
                let span = span.with("contact", outcome.contact.clone()).with("mailbox", mailbox.to_owned());
                span.with("disposition", "contact").end();
            }
        }
    }

    /// Contacts were handed to an instance, which is told their traces.
    pub fn taken(&self, contacts: &mut [v1::Contact]) {
        for contact in contacts {
            let Some(of) = trace::of_contact(&contact.id) else { continue };
            contact.traceparent = identity::header(&of);
            if let Some(span) = self.part(&of, "take") {
                // Whoever takes may have waited since before there was such a contact.
                let created = contact.created_time.and_then(|time| SystemTime::try_from(time).ok());
                let span = span.since(created.map_or(self.begun, |created| created.max(self.begun)));
                let span = span.with("contact", contact.id.clone()).with("instance", contact.instance.clone());
                span.with("queue", contact.queue.clone()).with("priority", i64::from(contact.priority)).end();
            }
        }
    }

    /// Somebody said what becomes of contacts: `name` says what.
    pub fn answered(&self, name: &'static str, instance: &str, outcomes: &[v1::ContactOutcome]) {
        for outcome in outcomes {
            let Some(of) = trace::of_contact(&outcome.contact) else { continue };
            if let Some(span) = self.part(&of, name) {
                let span = span.with("contact", outcome.contact.clone()).with("instance", instance.to_owned());
                span.failed((!outcome.reason.is_empty()).then(|| outcome.message.clone())).end();
            }
        }
    }

    /// A mail was stored, to be sent.
    pub fn composed(&self, mail: &v1::OutboxMail) {
        let Some(of) = trace::of_contact(of_mail(&mail.id, &mail.contact)) else { return };
        let span = match mail.contact.is_empty() {
            true => trace::first(&of, "send").map(|span| span.since(self.begun).linked(self.context.as_ref())),
            false => self.part(&of, "reply").map(|span| span.with("contact", mail.contact.clone())),
        };
        if let Some(span) = span {
            span.with("mail", mail.id.clone()).with("instance", mail.instance.clone()).end();
        }
    }
}

/// Whose trace a mail of the outbox belongs to: that of the contact that it answers, or its own.
pub fn of_mail<'a>(mail: &'a str, contact: &'a str) -> &'a str {
    if contact.is_empty() { mail } else { contact }
}
