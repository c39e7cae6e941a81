//! The metrics of a process.

use std::sync::OnceLock;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::process;

/// The name of a label and its value.
pub type Label = (&'static str, &'static str);

/// A metric, declared with what Prometheus shows of it.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    name: &'static str,
    help: &'static str,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    /// With the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

impl Metric {
    /// A number that only grows. Its name ends with `_total`.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Counter }
    }

    /// A number that grows and shrinks.
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Gauge }
    }

    /// How values are distributed over buckets with these upper bounds.
    pub const fn histogram(name: &'static str, help: &'static str, buckets: &'static [f64]) -> Self {
        Self { name, help, kind: Kind::Histogram(buckets) }
    }

    /// The metric's name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Shows the metric with these labels from now on, although nothing has happened yet: a rate needs a zero to start from.
    pub fn start(&self, labels: &[Label]) {
        let labels = owned(labels);
        match self.kind {
            Kind::Counter => counter!(self.name, labels).increment(0),
            Kind::Gauge => gauge!(self.name, labels).increment(0.0),
            // It is known from now on, and no value is recorded.
            Kind::Histogram(_) => drop(histogram!(self.name, labels)),
        }
    }

    fn describe(&self) {
        match self.kind {
            Kind::Counter => describe_counter!(self.name, self.help),
            Kind::Gauge => describe_gauge!(self.name, self.help),
            Kind::Histogram(_) => describe_histogram!(self.name, self.help),
        }
    }
}

fn owned(labels: &[Label]) -> Vec<metrics::Label> {
    labels.iter().map(|&(name, value)| metrics::Label::from_static_parts(name, value)).collect()
}

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// The recorder of this process, if there is one.
pub(crate) fn recorder() -> Option<&'static PrometheusHandle> {
    RECORDER.get()
}

/// Makes this process keep these metrics, those of the process itself and `sortinghat_build_info`, from the first call on. Later calls do
/// nothing.
///
/// # Panics
/// If the process has another recorder.
pub fn install(metrics: &[Metric], build: &[Label]) {
    RECORDER.get_or_init(|| {
        let page = builder(metrics).install_recorder().expect("nothing else in this process installs a recorder");
        metrics.iter().chain(&process::ALL).for_each(Metric::describe);
        let info =
            Metric::gauge("sortinghat_build_info", "What runs: always 1, with its version and contract as labels");
        info.describe();
        gauge!(info.name, owned(build)).set(1.0);
        page
    });
}

fn builder(metrics: &[Metric]) -> PrometheusBuilder {
    metrics.iter().fold(PrometheusBuilder::new(), |builder, metric| match metric.kind {
        Kind::Histogram(buckets) => builder
            .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
            .expect("a declared histogram has buckets"),
        Kind::Counter | Kind::Gauge => builder,
    })
}
