//! What every call passes before it reaches a service, and how large and long it may be.

use std::time::Duration;

use tonic::transport::server::Server;
use tower::layer::util::{Identity, Stack};

use crate::access::gate::Gate;
use crate::audit::Audit;
use crate::audit::layer::{Auditing, Counting};
use crate::telemetry::calls::Calls;

/// Largest request. Reports are at most 3 MiB, everything else but a model is smaller.
pub(super) use crate::audit::layer::LARGEST_REQUEST;
/// Largest answer.
pub(super) const LARGEST_ANSWER: usize = 64 * 1024 * 1024;
/// Largest model that can be applied: no model file is larger.
pub(super) const LARGEST_MODEL: usize = 64 * 1024 * 1024;
/// Largest answer about a model, which may tell every field of it, old and new.
pub(super) const LARGEST_MODEL_ANSWER: usize = 256 * 1024 * 1024;
/// Longest call: the upload of a large body, for which a worker waits two minutes, and some time to tell it apart.
const LONGEST_CALL: Duration = Duration::from_secs(150);

/// Most calls that are worked on at one time for a connection; the others wait.
const MOST_CALLS: usize = 256;
/// Most calls of a connection that have not ended, streams among them; the client waits with further ones.
const MOST_STREAMS: u32 = 1024;
/// Most bytes of a call's headers.
const LARGEST_HEADERS: u32 = 16 * 1024;

/// The count for metrics, the count of what is turned away, the gate, the audit.
type Passage = Stack<Auditing, Stack<Gate, Stack<Counting, Stack<Calls, Identity>>>>;

/// A server to which services are added.
pub(super) fn server(gate: Gate, audit: Audit) -> Server<Passage> {
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .concurrency_limit_per_connection(MOST_CALLS)
        .max_concurrent_streams(MOST_STREAMS)
        .http2_max_header_list_size(LARGEST_HEADERS)
        .timeout(LONGEST_CALL)
        // Ordering: outermost, so that calls are counted that the gate turns away.
        .layer(Calls)
        .layer(Counting(audit.clone()))
        .layer(gate)
        .layer(Auditing(audit))
}
