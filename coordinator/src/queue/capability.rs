//! The capabilities of a worker, compared with the requirements of a job.

use std::{collections::BTreeMap, fmt};

use sortinghat_proto::{ByteCount, DeviceKind, Label, Requirements, limits::MAX_WORKER_LABELS, v1};

/// The capabilities of a worker. A capability that the worker does not know of itself counts as missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// The kind of the device that computes.
    pub device_kind: Option<DeviceKind>,
    /// The memory of the machine.
    pub memory: ByteCount,
    /// The memory of the device.
    pub device_memory: ByteCount,
    /// The labels, by name.
    pub labels: BTreeMap<Label, Label>,
}

impl From<&v1::WorkerDescription> for Capabilities {
    /// Leaves out malformed labels, which no job can require, and the labels over the limit.
    fn from(description: &v1::WorkerDescription) -> Self {
        let labels =
            description.labels.iter().filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)));
        Self {
            device_kind: DeviceKind::of_device(&description.device),
            memory: ByteCount(description.memory_bytes),
            device_memory: ByteCount(description.device_memory_bytes),
            labels: labels.take(MAX_WORKER_LABELS).collect(),
        }
    }
}

impl Capabilities {
    /// Whether a worker with these capabilities may run a job with these requirements.
    pub fn meet(&self, requirements: &Requirements) -> bool {
        self.shortfalls(requirements).is_empty()
    }

    /// Every requirement that is not met, with what the worker has instead.
    pub fn shortfalls(&self, requirements: &Requirements) -> Vec<v1::Shortfall> {
        let device = requirements.device_kind.filter(|required| self.device_kind != Some(*required));
        let device = device.map(|required| shortfall("device", required, self.device_kind));
        let sizes = [
            ("memory", requirements.min_memory, self.memory),
            ("device-memory", requirements.min_device_memory, self.device_memory),
        ];
        let sizes = sizes.into_iter().filter(|(_, required, has)| has < required);
        let sizes = sizes.map(|(name, required, has)| shortfall(name, required, Some(has).filter(|has| has.0 > 0)));
        let labels = requirements.labels.iter().filter(|(name, required)| self.labels.get(name) != Some(required));
        let labels =
            labels.map(|(name, required)| shortfall(&format!("label.{name}"), required, self.labels.get(name)));
        device.into_iter().chain(sizes).chain(labels).collect()
    }
}

fn shortfall<T: fmt::Display>(requirement: &str, required: T, has: Option<T>) -> v1::Shortfall {
    let has = has.map(|has| has.to_string()).unwrap_or_default();
    v1::Shortfall { requirement: requirement.to_owned(), required: required.to_string(), has }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu_worker() -> Capabilities {
        Capabilities::from(&v1::WorkerDescription {
            device: "cuda:1".into(),
            memory_bytes: 16 << 30,
            device_memory_bytes: 8 << 30,
            labels: [("zone".to_owned(), "eu".to_owned()), ("no label!".to_owned(), "x".to_owned())].into(),
            ..v1::WorkerDescription::default()
        })
    }

    #[test]
    fn a_worker_that_has_exactly_what_is_required_may_run_the_job() {
        for text in ["", "device=cuda,memory=16GiB,device-memory=8GiB,label.zone=eu"] {
            assert!(gpu_worker().meet(&text.parse().expect("valid")), "{text:?}");
        }
        assert!(
            Capabilities::default().meet(&Requirements::default()),
            "a worker without capabilities runs a job without requirements"
        );
    }

    #[test]
    fn every_unmet_requirement_is_named_with_what_the_worker_has() {
        let required = "device=cuda,memory=17GiB,device-memory=9GiB,label.rack=7,label.zone=us";
        let required = required.parse().expect("valid");
        let missing = |required: &Requirements| -> Vec<[String; 3]> {
            let shortfalls = gpu_worker().shortfalls(required).into_iter();
            shortfalls.map(|short| [short.requirement, short.required, short.has]).collect()
        };
        let expected = [
            ["memory", "17GiB", "16GiB"],
            ["device-memory", "9GiB", "8GiB"],
            ["label.rack", "7", ""],
            ["label.zone", "us", "eu"],
        ];
        assert_eq!(missing(&required), expected);
        assert_eq!(missing(&"device=cpu".parse().expect("valid")), [["device", "cpu", "cuda"]]);
    }
}
