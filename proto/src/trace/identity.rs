//! Which trace something belongs to, and whether that is told. Pure, but for random ids.

use std::collections::HashMap;

use data_encoding::HEXLOWER;
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator};

use super::HEADER;

/// The trace of a contact, as the span from which all others of it descend; `share`: which part of all contacts is told.
///
/// Invariant: every process that has the same share decides alike, at any time.
pub fn of_contact(contact: &str, share: f64) -> Option<SpanContext> {
    // A UUID of version 7: the time, then 62 random bits.
    let id: [u8; 16] = HEXLOWER.decode(contact.as_bytes()).ok()?.try_into().ok()?;
    let [.., a, b, c, d, e, f, g, h] = id;
    let drawn = u32::from_be_bytes([e, f, g, h]);
    let span = SpanId::from_bytes([a, b, c, d, e, f, g, h]);
    chosen(drawn, share).then(|| context(TraceId::from_bytes(id), span, true)).filter(SpanContext::is_valid)
}

/// The trace that a header says, if it is to be told.
pub fn read(header: &str) -> Option<SpanContext> {
    let carrier = HashMap::from([(HEADER.to_owned(), header.to_owned())]);
    let found = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    let span = found.span();
    Some(span.span_context().clone()).filter(|span| span.is_valid() && span.is_sampled())
}

/// The header that says this.
pub fn header(context: &SpanContext) -> String {
    let mut carrier = HashMap::new();
    let context = Context::new().with_remote_span_context(context.clone());
    TraceContextPropagator::new().inject_context(&context, &mut carrier);
    carrier.remove(HEADER).unwrap_or_default()
}

/// A span below another.
pub(super) fn below(of: &SpanContext) -> SpanContext {
    context(of.trace_id(), RandomIdGenerator::default().new_span_id(), false)
}

/// A trace that nobody knows yet; `share`: which part of all such is told.
pub(super) fn fresh(share: f64) -> Option<SpanContext> {
    let ids = RandomIdGenerator::default();
    let id = ids.new_trace_id();
    let [.., a, b, c, d] = id.to_bytes();
    chosen(u32::from_be_bytes([a, b, c, d]), share).then(|| context(id, ids.new_span_id(), false))
}

fn chosen(drawn: u32, share: f64) -> bool {
    f64::from(drawn) < share * (f64::from(u32::MAX) + 1.0)
}

fn context(trace: TraceId, span: SpanId, remote: bool) -> SpanContext {
    SpanContext::new(trace, span, TraceFlags::SAMPLED, remote, TraceState::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTACT: &str = "0193e8a1f0a27c3d8a5b00000000ffff";

    #[test]
    fn a_contact_has_one_trace_that_is_called_like_it() {
        let found = of_contact(CONTACT, 1.0).unwrap();
        assert_eq!(found.trace_id().to_string(), CONTACT);
        assert_eq!(found.span_id().to_string(), "8a5b00000000ffff");
        assert_eq!(header(&found), format!("00-{CONTACT}-8a5b00000000ffff-01"));
        assert_eq!(read(&header(&found)), Some(found));
        for none in ["", "x", "0193e8a1f0a27c3d8a5b00000000fff", "00000000000000000000000000000000"] {
            assert_eq!(of_contact(none, 1.0), None, "{none}");
        }
    }

    #[test]
    fn the_share_of_contacts_is_told() {
        let told =
            |share| (0..1000_u32).filter(|n| of_contact(&contact(n.wrapping_mul(4_294_967)), share).is_some()).count();
        fn contact(low: u32) -> String {
            format!("0193e8a1f0a27c3d8a5b0000{low:08x}")
        }
        assert_eq!((told(0.0), told(1.0)), (0, 1000));
        assert!((90..=110).contains(&told(0.1)), "{}", told(0.1));
        assert_eq!((fresh(0.0), fresh(1.0).is_some()), (None, true));
    }

    #[test]
    fn only_a_valid_header_of_a_trace_that_is_told_is_followed() {
        assert!(read("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").is_some());
        for none in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-01",
        ] {
            assert_eq!(read(none), None, "{none}");
        }
    }
}
