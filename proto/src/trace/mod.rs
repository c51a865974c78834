//! Traces: what happened to a contact on its way, and what a call did, told to a collector over OTLP.
//!
//! A contact's trace has the contact's id. So nothing has to be stored or handed on for the parts that a worker and a
//! control plane tell days apart to come together, and whoever has a contact's id has its trace. Of calls, the trace is
//! that of the caller, if it says one (W3C Trace Context, header `traceparent`); the parts of a contact's trace link to it.
//!
//! Invariant: a span names ids, mailboxes and numbers, never what a mail says or whom it is from.
//!
//! Reading order: [`identity`] (which trace, and whether it is told, pure), [`span`] (one part of it), [`sink`] (where it
//! goes), [`choice`] (what can be set).

use std::sync::OnceLock;

use opentelemetry::trace::SpanId;

pub use self::choice::Choice;
pub use self::sink::{StartError, Traces};
pub use self::span::Span;

pub mod choice;
pub mod identity;
pub mod sink;
pub mod span;

pub use opentelemetry::trace::{SpanContext, SpanKind};

/// Header of a call that says of which trace it is a part (W3C Trace Context section 3.2).
pub const HEADER: &str = "traceparent";

/// Where all of this process goes. A process tells traces from its start on or never.
static SINK: OnceLock<sink::Sink> = OnceLock::new();

/// The trace of a contact, as the span from which all others of it descend. `None`: it is not told.
pub fn of_contact(contact: &str) -> Option<SpanContext> {
    identity::of_contact(contact, SINK.get()?.share())
}

/// What says the trace of a contact to others, for [`HEADER`]; empty: it is not told.
pub fn header_of(contact: &str) -> String {
    of_contact(contact).as_ref().map(identity::header).unwrap_or_default()
}

/// The trace that a caller names in [`HEADER`]. `None`: it is not told.
pub fn of_caller(header: &str) -> Option<SpanContext> {
    SINK.get()?;
    identity::read(header)
}

/// The span from which all others of a trace descend.
pub fn first(of: &SpanContext, name: &'static str) -> Option<Span> {
    SINK.get().map(|_| Span::new(of.clone(), SpanId::INVALID, name))
}

/// A span below another.
pub fn part(of: &SpanContext, name: &'static str) -> Option<Span> {
    SINK.get().map(|_| Span::new(identity::below(of), of.span_id(), name))
}

/// A span for a call to somebody else, in a trace of its own. `None`: this one is not told.
pub fn call(name: &'static str) -> Option<Span> {
    let context = identity::fresh(SINK.get()?.share())?;
    Some(Span::new(context, SpanId::INVALID, name).kind(SpanKind::Client))
}
