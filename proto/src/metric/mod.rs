//! What a process measures, and the text in which Prometheus reads it.
//!
//! Every metric stands in the `inventory`, and can only be used from there: a process cannot show one that is not
//! listed. Values belong to the process, as its log does; whoever measures says nothing of where that goes.
//!
//! Invariant: no label has values that people outside choose. The few that grow with the model (mailboxes) are bounded
//! by whoever sets them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::{MetricType, counter, histogram};
use prometheus_client::registry::Registry;

mod inventory;

pub use inventory::*;

/// Media type of [`render`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What there is to know of a metric beside its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name, with unit and `_total` as Prometheus wants them.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// Which process has it.
    pub process: Process,
    /// What it means; one sentence without a full stop.
    pub help: &'static str,
}

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from 0 at the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// Which process has a metric. `postroom up` is both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// postroom-control-plane.
    ControlPlane,
    /// postroom-worker.
    Worker,
    /// Each.
    Both,
}

impl Kind {
    /// Its name in Prometheus.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Process {
    /// Its name in the manual.
    pub fn name(self) -> &'static str {
        match self {
            Self::ControlPlane => "control plane",
            Self::Worker => "worker",
            Self::Both => "both",
        }
    }
}

type Labels = Vec<(&'static str, String)>;

impl Metric {
    fn labelled(&self, values: &[&str]) -> Labels {
        debug_assert_eq!(values.len(), self.labels.len(), "{} has the labels {:?}", self.name, self.labels);
        self.labels.iter().copied().zip(values.iter().map(|value| escaped(value))).collect()
    }
}

/// A label's value as the text format wants it: prometheus-client writes it as it is, and one quote in the name of a queue
/// would spoil the whole answer.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Only grows.
#[derive(Debug)]
pub struct Counter {
    metric: Metric,
    family: OnceLock<Family<Labels, counter::Counter>>,
}

impl Counter {
    const fn new(metric: Metric) -> Self {
        Self { metric, family: OnceLock::new() }
    }

    /// Counts one. `labels`: values, in the order of the inventory.
    pub fn count(&self, labels: &[&str]) {
        self.add(labels, 1);
    }

    /// Counts several.
    pub fn add(&self, labels: &[&str], count: u64) {
        self.family().get_or_create(&self.metric.labelled(labels)).inc_by(count);
    }

    fn family(&self) -> &Family<Labels, counter::Counter> {
        self.family.get_or_init(Family::default)
    }
}

/// Counts times by length.
#[derive(Debug)]
pub struct Histogram {
    metric: Metric,
    buckets: &'static [f64],
    family: OnceLock<Family<Labels, histogram::Histogram, Buckets>>,
}

/// Upper ends of the buckets of a histogram, in seconds.
#[derive(Debug, Clone, Copy)]
struct Buckets(&'static [f64]);

impl MetricConstructor<histogram::Histogram> for Buckets {
    fn new_metric(&self) -> histogram::Histogram {
        histogram::Histogram::new(self.0.iter().copied())
    }
}

impl Histogram {
    const fn new(metric: Metric, buckets: &'static [f64]) -> Self {
        Self { metric, buckets, family: OnceLock::new() }
    }

    /// Counts a time. `labels`: values, in the order of the inventory.
    pub fn observe(&self, labels: &[&str], time: Duration) {
        self.family().get_or_create(&self.metric.labelled(labels)).observe(time.as_secs_f64());
    }

    fn family(&self) -> &Family<Labels, histogram::Histogram, Buckets> {
        self.family.get_or_init(|| Family::new_with_constructor(Buckets(self.buckets)))
    }
}

/// Goes up and down.
#[derive(Debug)]
pub struct Gauge {
    metric: Metric,
    // Held only to read or change values, never across an await.
    values: Mutex<BTreeMap<Vec<String>, f64>>,
}

impl Gauge {
    const fn new(metric: Metric) -> Self {
        Self { metric, values: Mutex::new(BTreeMap::new()) }
    }

    /// Sets one value. `labels`: values, in the order of the inventory.
    pub fn set(&self, labels: &[&str], value: f64) {
        debug_assert_eq!(labels.len(), self.metric.labels.len(), "{} has other labels", self.metric.name);
        self.lock().insert(labels.iter().map(|label| (*label).to_owned()).collect(), value);
    }

    /// Sets all values at once: what is not among them is shown no more.
    pub fn replace<const N: usize>(&self, values: impl IntoIterator<Item = ([String; N], f64)>) {
        debug_assert_eq!(N, self.metric.labels.len(), "{} has other labels", self.metric.name);
        let values = values.into_iter().map(|(labels, value)| (Vec::from(labels), value)).collect();
        *self.lock() = values;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Vec<String>, f64>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One line of the inventory.
pub trait Listed: Sync {
    /// What it is.
    fn metric(&self) -> &Metric;
    /// Writes its values, if it has any.
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result;
}

impl Listed for Counter {
    fn metric(&self) -> &Metric {
        &self.metric
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(family) = self.family.get() else { return Ok(()) };
        // The suffix is added by the encoder.
        let name = self.metric.name.trim_end_matches("_total");
        let encoder = encoder.encode_descriptor(name, self.metric.help, None, MetricType::Counter)?;
        if self.metric.labels.is_empty() {
            // As a family it would have empty braces.
            return family.get_or_create(&Labels::new()).encode(encoder);
        }
        family.encode(encoder)
    }
}

impl Listed for Histogram {
    fn metric(&self) -> &Metric {
        &self.metric
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(family) = self.family.get() else { return Ok(()) };
        let encoder = encoder.encode_descriptor(self.metric.name, self.metric.help, None, MetricType::Histogram)?;
        if self.metric.labels.is_empty() {
            return family.get_or_create(&Labels::new()).encode(encoder);
        }
        family.encode(encoder)
    }
}

impl Listed for Gauge {
    fn metric(&self) -> &Metric {
        &self.metric
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        // A copy: whoever reads slowly must not hold up whoever measures.
        let values = self.lock().clone();
        if values.is_empty() {
            return Ok(());
        }
        let mut metric = encoder.encode_descriptor(self.metric.name, self.metric.help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            let value = ConstGauge::new(value);
            if labels.is_empty() {
                return EncodeMetric::encode(&value, metric);
            }
            let labels = labels.iter().map(|label| escaped(label));
            let labels: Labels = self.metric.labels.iter().copied().zip(labels).collect();
            EncodeMetric::encode(&value, metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// Everything of the inventory that has a value.
#[derive(Debug)]
struct Everything;

impl Collector for Everything {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        ALL.iter().try_for_each(|listed| listed.encode(&mut encoder))
    }
}

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Everything));
    registry
});

/// All values of this process as OpenMetrics text.
pub fn render() -> String {
    let mut text = String::new();
    match text::encode(&mut text, &REGISTRY) {
        Ok(()) => text,
        // Writing to a string cannot fail; if it does, nothing is better than half.
        Err(fmt::Error) => "# EOF\n".into(),
    }
}

#[cfg(test)]
mod tests;
