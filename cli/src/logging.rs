//! Logs of `postroom up`, to standard error.

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

/// Environment variable with the filter, in the form of tracing's directives, for example "debug".
pub const FILTER: &str = "POSTROOM_LOG";

/// Begins to log. A second call changes nothing.
pub fn init(filter: Option<&str>) {
    // A subscriber that is there already belongs to a test or to a program around this one.
    let _ = subscriber(filter, std::io::stderr).try_init();
}

fn subscriber<W>(filter: Option<&str>, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    let wanted = filter.and_then(|filter| EnvFilter::try_new(filter).ok()).unwrap_or_else(|| EnvFilter::new("info"));
    let layer = fmt::layer().with_writer(writer).with_ansi(false).with_filter(filter_fn(is_safe));
    tracing_subscriber::registry().with(wanted).with(layer)
}

/// Invariant: libraries are never heard below INFO, whatever the filter asks for. Some write what they send, and with
/// it bearer tokens and passwords (async-imap at TRACE, for one).
fn is_safe(event: &Metadata<'_>) -> bool {
    event.target().starts_with("postroom") || *event.level() <= Level::INFO
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn libraries_stay_silent_about_what_they_send() {
        let sink = Sink::default();
        let writer = sink.clone();
        tracing::subscriber::with_default(subscriber(Some("trace"), move || writer.clone()), || {
            tracing::trace!(target: "async_imap::imap_stream", "encode: planted-token");
            tracing::debug!(target: "hyper::proto", "planted-token");
            tracing::warn!(target: "hyper::proto", "heard");
            tracing::trace!(target: "postroom_worker::mailbox", "our own");
        });
        let log = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert!(log.contains("heard") && log.contains("our own"), "{log}");
        assert!(!log.contains("planted-token"), "{log}");
    }
}
