//! The pages that coordinators and workers show to operators, over plain HTTP: `/metrics` for Prometheus, and the probes of Kubernetes.
//!
//! - [`Metric`] declares a metric: what it counts, in which unit. [`install`] makes the process keep all that are declared.
//! - [`Probes`] is what a process says of itself, and [`serve`] shows it. The probes look at no store: one that is down must neither take
//!   every process out of service nor restart it.

mod metric;
mod process;
mod server;

pub use metric::{Label, Metric, install};
pub use server::{Probes, serve};
