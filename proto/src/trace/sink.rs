//! Where traces go: in batches to a collector, by a thread of their own.
//!
//! Nothing waits for the collector. What it does not take in time is dropped and counted; mail goes on.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor as _};
use tonic::transport::{Certificate, ClientTlsConfig};

use super::{Choice, SINK};
use crate::settings::{Refusal, refusal};
use crate::{metric, version};

/// Most spans that wait; at 1 KiB or so each.
const QUEUE: u64 = 8192;
/// Most spans of one call to the collector.
const BATCH: usize = 512;
/// How long a span waits for others.
const DELAY: Duration = Duration::from_secs(1);
/// Longest wait for the collector's answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest time for the last spans when the process stops.
const LAST: Duration = Duration::from_secs(5);

/// Why traces cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The CA certificates cannot be read.
    #[error("the file {path:?} of trace.ca-file cannot be read: {source}")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The endpoint cannot be called.
    #[error(
        "traces cannot be sent to {endpoint}: {source}; write trace.endpoint as http://host:4317 or https://host:4317"
    )]
    Endpoint {
        /// The endpoint.
        endpoint: String,
        /// Why.
        #[source]
        source: ExporterBuildError,
    },
}

/// What spans of this process are put into.
pub(super) struct Sink {
    processor: BatchSpanProcessor,
    waiting: Arc<AtomicU64>,
    share: f64,
}

impl Sink {
    /// Which part of all is told.
    pub(super) fn share(&self) -> f64 {
        self.share
    }

    pub(super) fn take(&self, span: SpanData) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) < QUEUE {
            self.processor.on_end(span);
        } else {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            metric::SPANS.count(&["dropped"]);
        }
    }
}

impl From<StartError> for Refusal {
    fn from(error: StartError) -> Self {
        Self::new(refusal::USAGE, error.to_string(), "leave trace.endpoint out to go on without traces")
    }
}

/// The traces of this process, if it tells any, to be [ended](Traces::end) when it stops.
#[derive(Debug)]
pub struct Traces(());

impl Traces {
    /// Begins to tell traces, if they are asked for, within a runtime. `process` and `instance` say who tells. A second call
    /// changes nothing.
    pub fn begin(choice: Option<&Choice>, process: &'static str, instance: &str) -> Result<Self, StartError> {
        let Some(choice) = choice else { return Ok(Self(())) };
        let waiting = Arc::<AtomicU64>::default();
        let exporter = Counted { inner: exporter(choice)?, waiting: waiting.clone(), failing: AtomicBool::new(false) };
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE as usize)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(DELAY);
        let mut processor = BatchSpanProcessor::builder(exporter).with_batch_config(config.build()).build();
        let resource = Resource::builder_empty().with_attributes([
            KeyValue::new("service.name", process),
            KeyValue::new("service.version", version::full()),
            KeyValue::new("service.instance.id", instance.to_owned()),
        ]);
        processor.set_resource(&resource.build());
        let _ = SINK.set(Sink { processor, waiting, share: choice.share });
        Ok(Self(()))
    }

    /// Sends what is left, within a few seconds.
    pub async fn end(self) {
        let ending = tokio::task::spawn_blocking(|| SINK.get().map(|sink| sink.processor.shutdown_with_timeout(LAST)));
        match tokio::time::timeout(LAST * 2, ending).await {
            Ok(Ok(Some(Err(error)))) => tracing::warn!(%error, "the last traces were not sent"),
            Ok(_) => {}
            Err(_) => tracing::warn!("the last traces were not sent in time"),
        }
    }
}

fn exporter(choice: &Choice) -> Result<opentelemetry_otlp::SpanExporter, StartError> {
    let builder =
        opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(&choice.endpoint).with_timeout(ANSWER);
    let built = if choice.endpoint.starts_with("https://") {
        let tls = match &choice.ca_file {
            None => ClientTlsConfig::new().with_enabled_roots(),
            Some(path) => {
                let unreadable = |source| StartError::CaFile { path: path.clone(), source };
                let pem = std::fs::read(path).map_err(unreadable)?;
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
            }
        };
        builder.with_tls_config(tls).build()
    } else {
        builder.build()
    };
    built.map_err(|source| StartError::Endpoint { endpoint: choice.endpoint.clone(), source })
}

/// Counts what becomes of spans, of which the exporter itself says nothing.
struct Counted<E> {
    inner: E,
    waiting: Arc<AtomicU64>,
    /// So that a collector that is away is told once.
    failing: AtomicBool,
}

impl<E> fmt::Debug for Counted<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counted").finish_non_exhaustive()
    }
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len() as u64;
        let exported = self.inner.export(batch).await;
        self.waiting.fetch_sub(count, Ordering::Relaxed);
        metric::SPANS.add(&[if exported.is_ok() { "sent" } else { "failed" }], count);
        match (&exported, self.failing.swap(exported.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => {
                tracing::warn!(%error, "traces cannot be sent; they are dropped until the collector takes them again");
            }
            (Ok(()), true) => tracing::info!("traces are sent again"),
            _ => {}
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
