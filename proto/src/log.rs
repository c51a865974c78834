//! Logs of a process, to standard error.

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Layered, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

pub mod fields;

/// Environment variable of `postroom up` with the filter, in the form of tracing's directives, for example "debug".
pub const FILTER: &str = "POSTROOM_LOG";

/// How lines of a log look.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// The words for formats in settings.
pub const FORMATS: &[(&str, Format)] = &[("text", Format::Text), ("json", Format::Json)];

/// A filter as settings take it.
pub fn filter(text: &str) -> Result<String, String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.into()),
        Err(_) => {
            Err(format!("{text:?} is no filter; write a level such as info or debug, or postroom_worker=debug,info"))
        }
    }
}

/// Begins to log. A second call changes nothing.
pub fn init(filter: Option<&str>, format: Format) {
    // A subscriber that is there already belongs to a test or to a program around this one.
    let _ = match format {
        Format::Text => subscriber(filter, fmt::layer().with_writer(std::io::stderr).with_ansi(false)).try_init(),
        Format::Json => subscriber(filter, fmt::layer().json().with_writer(std::io::stderr)).try_init(),
    };
}

fn subscriber<L>(filter: Option<&str>, layer: L) -> impl Subscriber + Send + Sync
where
    L: Layer<Layered<EnvFilter, Registry>> + Send + Sync,
{
    let wanted = filter.and_then(|filter| EnvFilter::try_new(filter).ok()).unwrap_or_else(|| EnvFilter::new("info"));
    tracing_subscriber::registry().with(wanted).with(layer.with_filter(filter_fn(is_safe)))
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
        let layer = fmt::layer().with_writer(move || writer.clone());
        tracing::subscriber::with_default(subscriber(Some("trace"), layer), || {
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
