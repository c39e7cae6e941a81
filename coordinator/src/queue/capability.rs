//! What a worker has, held against what a job requires.

use std::{collections::BTreeMap, fmt};

use sortinghat_proto::{ByteCount, DeviceKind, Label, Requirements, limits::MAX_WORKER_LABELS, v1};

/// What a worker has. What it does not know of itself counts as nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// What computes.
    pub device_kind: Option<DeviceKind>,
    /// Memory of the machine.
    pub memory: ByteCount,
    /// Memory of the device.
    pub device_memory: ByteCount,
    /// Labels, by name.
    pub labels: BTreeMap<Label, Label>,
}

impl From<&v1::WorkerDescription> for Capabilities {
    /// Labels that are none are left out, and so are those over the limit: what nobody can require need not be kept.
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
    /// Whether a worker that has this may run a job with these requirements.
    pub fn meet(&self, requirements: &Requirements) -> bool {
        self.shortfalls(requirements).is_empty()
    }

    /// Everything that is required and missing, with what is there instead.
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
    fn a_worker_that_has_exactly_what_is_required_will_do() {
        for text in ["", "device=cuda,memory=16GiB,device-memory=8GiB,label.zone=eu"] {
            assert!(gpu_worker().meet(&text.parse().expect("valid")), "{text:?}");
        }
        assert!(
            Capabilities::default().meet(&Requirements::default()),
            "one that says nothing runs what requires nothing"
        );
    }

    #[test]
    fn everything_that_is_missing_is_named_with_what_is_there() {
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
