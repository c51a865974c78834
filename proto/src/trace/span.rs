//! One part of a trace.

use std::time::SystemTime;

use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanLinks};

use super::SINK;

/// What happened, from when to when. It is told when it ends; one that is dropped is not.
#[derive(Debug)]
pub struct Span(Box<SpanData>);

impl Span {
    /// Begins now.
    pub(super) fn new(context: SpanContext, parent: SpanId, name: &'static str) -> Self {
        let now = SystemTime::now();
        Self(Box::new(SpanData {
            span_context: context,
            parent_span_id: parent,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: name.into(),
            start_time: now,
            end_time: now,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: Default::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::builder("postroom").build(),
        }))
    }

    /// What sort of work it is.
    pub fn kind(mut self, kind: SpanKind) -> Self {
        self.0.span_kind = kind;
        self
    }

    /// It began then.
    pub fn since(mut self, begun: SystemTime) -> Self {
        self.0.start_time = begun;
        self
    }

    /// Says something of it. `key` is a name of [`crate::log::fields::FIELDS`], or one of OpenTelemetry's conventions.
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.0.attributes.push(KeyValue::new(key, value));
        self
    }

    /// Happened for something of another trace.
    pub fn linked(mut self, to: Option<&SpanContext>) -> Self {
        if let Some(to) = to {
            self.0.links.links.push(Link::with_context(to.clone()));
        }
        self
    }

    /// It came to nothing, if there is a reason.
    pub fn failed(mut self, why: Option<String>) -> Self {
        if let Some(why) = why {
            self.0.status = Status::error(why);
        }
        self
    }

    /// Who it is, for whoever it calls.
    pub fn context(&self) -> &SpanContext {
        &self.0.span_context
    }

    /// It ends now.
    pub fn end(self) {
        self.end_at(SystemTime::now());
    }

    /// It ended then.
    pub fn end_at(mut self, ended: SystemTime) {
        self.0.end_time = ended.max(self.0.start_time);
        if let Some(sink) = SINK.get() {
            sink.take(*self.0);
        }
    }
}
