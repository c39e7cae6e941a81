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

/// Something that a job requires and a worker has not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shortfall {
    /// Another kind of device.
    Device {
        /// The kind that is required.
        required: DeviceKind,
        /// The kind that it has.
        has: Option<DeviceKind>,
    },
    /// Too little memory.
    Memory {
        /// At least this much is required.
        required: ByteCount,
        /// It has this much.
        has: ByteCount,
    },
    /// Too little memory of the device.
    DeviceMemory {
        /// At least this much is required.
        required: ByteCount,
        /// It has this much.
        has: ByteCount,
    },
    /// Another value of a label, or no such label.
    Label {
        /// The label.
        name: Label,
        /// The value that is required.
        required: Label,
        /// The value that it has.
        has: Option<Label>,
    },
}

impl Capabilities {
    /// Whether a worker that has this may run a job with these requirements.
    pub fn meet(&self, requirements: &Requirements) -> bool {
        self.shortfalls(requirements).is_empty()
    }

    /// Everything that is required and missing.
    pub fn shortfalls(&self, requirements: &Requirements) -> Vec<Shortfall> {
        let device = requirements.device_kind.filter(|required| self.device_kind != Some(*required));
        let device = device.map(|required| Shortfall::Device { required, has: self.device_kind });
        let (required, has) = (requirements.min_memory, self.memory);
        let memory = (has < required).then_some(Shortfall::Memory { required, has });
        let (required, has) = (requirements.min_device_memory, self.device_memory);
        let device_memory = (has < required).then_some(Shortfall::DeviceMemory { required, has });
        let labels = requirements.labels.iter().filter(|(name, required)| self.labels.get(name) != Some(required));
        let labels = labels.map(|(name, required)| Shortfall::Label {
            name: name.clone(),
            required: required.clone(),
            has: self.labels.get(name).cloned(),
        });
        device.into_iter().chain(memory).chain(device_memory).chain(labels).collect()
    }
}

/// "device cuda (it has cpu)".
impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device { required, has: Some(has) } => write!(f, "device {required} (it has {has})"),
            Self::Device { required, has: None } => write!(f, "device {required} (it has none yet)"),
            Self::Memory { required, has } => write!(f, "{required} of memory (it has {has})"),
            Self::DeviceMemory { required, has } => write!(f, "{required} of device memory (it has {has})"),
            Self::Label { name, required, has: Some(has) } => {
                write!(f, "label {name}={required} (it has {name}={has})")
            }
            Self::Label { name, required, has: None } => write!(f, "label {name}={required} (it has no {name})"),
        }
    }
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
        let required = "device=cuda,memory=17GiB,device-memory=9GiB,label.rack=7,label.zone=us".parse().expect("valid");
        let shown: Vec<String> = gpu_worker().shortfalls(&required).iter().map(ToString::to_string).collect();
        let expected = [
            "17GiB of memory (it has 16GiB)",
            "9GiB of device memory (it has 8GiB)",
            "label rack=7 (it has no rack)",
            "label zone=us (it has zone=eu)",
        ];
        assert_eq!(shown, expected);
        let cpu = "device=cpu".parse().expect("valid");
        assert_eq!(gpu_worker().shortfalls(&cpu)[0].to_string(), "device cpu (it has cuda)");
    }
}
