//! The lane in which a job waits, and what a worker must have to run the job.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{ByteCount, Refusal, limits, v1, words};

/// The lane that a job waits in. Interactive jobs go first, but one claim in eight goes to a bulk job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Somebody waits for the answer.
    Interactive,
    /// Everything else.
    #[default]
    Bulk,
}

impl Lane {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Bulk => "bulk",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Lane {
    type Err = Refusal;
    fn from_str(text: &str) -> Result<Self, Refusal> {
        let found = [Self::Interactive, Self::Bulk].into_iter().find(|lane| lane.as_str() == text);
        found.ok_or_else(|| {
            Refusal::invalid("lane", format!("{} is not a lane: use interactive or bulk", words::quoted(text)))
        })
    }
}

impl From<v1::Lane> for Lane {
    fn from(wire: v1::Lane) -> Self {
        match wire {
            v1::Lane::Interactive => Self::Interactive,
            v1::Lane::Unspecified | v1::Lane::Bulk => Self::Bulk,
        }
    }
}

impl From<Lane> for v1::Lane {
    fn from(lane: Lane) -> Self {
        match lane {
            Lane::Interactive => Self::Interactive,
            Lane::Bulk => Self::Bulk,
        }
    }
}

/// The kind of device that computes on a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceKind {
    /// The machine's processor.
    Cpu,
    /// An Nvidia GPU.
    Cuda,
}

impl DeviceKind {
    /// The kind of a worker's device, `cpu` or `cuda:0`; `None` for one that this software does not know.
    pub fn of_device(device: &str) -> Option<Self> {
        let kind = device.split_once(':').map_or(device, |(kind, _)| kind);
        [Self::Cpu, Self::Cuda].into_iter().find(|known| known.as_str() == kind)
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name or the value of a label: 1 to 63 of A-Z, a-z, 0-9, '.', '_', '-', '/'.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(String);

impl Label {
    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Label {
    type Err = Refusal;
    fn from_str(text: &str) -> Result<Self, Refusal> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
        if (1..=limits::MAX_LABEL_BYTES).contains(&text.len()) && text.bytes().all(is_allowed) {
            return Ok(Self(text.to_owned()));
        }
        let most = limits::MAX_LABEL_BYTES;
        let message =
            format!("{} is not a label: use 1 to {most} of A-Z, a-z, 0-9, '.', '_', '-', '/'", words::quoted(text));
        Err(Refusal::invalid("labels", message))
    }
}

/// What a worker must have to run a job. Equal requirements have the same text, which is part of the name of the queue that the job waits
/// in: `device=cuda,memory=16GiB,device-memory=8GiB,label.zone=eu`. The text is empty if nothing is required.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Requirements {
    /// The kind of device that computes; `None` for any.
    pub device_kind: Option<DeviceKind>,
    /// Least memory of the machine; 0 for any.
    pub min_memory: ByteCount,
    /// Least memory of the device; 0 for any.
    pub min_device_memory: ByteCount,
    /// Labels, by name.
    pub labels: BTreeMap<Label, Label>,
}

impl Requirements {
    /// Whether any worker will do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The wire's message; `None` if nothing is required.
    pub fn into_wire(self) -> Option<v1::Requirements> {
        (!self.is_empty()).then(|| v1::Requirements {
            device_kind: self.device_kind.map(|kind| kind.to_string()).unwrap_or_default(),
            min_memory_bytes: self.min_memory.0,
            min_device_memory_bytes: self.min_device_memory.0,
            labels: self.labels.into_iter().map(|(name, value)| (name.0, value.0)).collect(),
        })
    }

    /// Adds one item of the text, such as `memory=16GiB`.
    fn add(&mut self, item: &str) -> Result<(), Refusal> {
        let invalid = |message: String| Refusal::invalid("requirements", message);
        let (key, value) =
            item.split_once('=').ok_or_else(|| invalid(format!("{} is not KEY=VALUE", words::quoted(item))))?;
        let size = || match value.parse() {
            Ok(ByteCount(0)) => Err(invalid(format!("{key} of 0 bytes requires nothing: leave it out"))),
            Ok(size) => Ok(size),
            Err(error) => Err(invalid(format!("{key}: {error}"))),
        };
        let is_repeated = match key {
            "device" => self.device_kind.replace(device_kind(value)?).is_some(),
            "memory" => std::mem::replace(&mut self.min_memory, size()?) > ByteCount(0),
            "device-memory" => std::mem::replace(&mut self.min_device_memory, size()?) > ByteCount(0),
            _ => {
                let name = key.strip_prefix("label.").ok_or_else(|| {
                    invalid(format!(
                        "{} cannot be required: use device, memory, device-memory or label.NAME",
                        words::quoted(key)
                    ))
                })?;
                self.labels.insert(name.parse()?, value.parse()?).is_some()
            }
        };
        if is_repeated { Err(invalid(format!("{key} is required twice"))) } else { Ok(()) }
    }

    fn checked(self) -> Result<Self, Refusal> {
        if self.labels.len() > limits::MAX_REQUIRED_LABELS {
            let message = format!("{} labels are more than {}", self.labels.len(), limits::MAX_REQUIRED_LABELS);
            return Err(Refusal::invalid("requirements.labels", message));
        }
        if self.device_kind == Some(DeviceKind::Cpu) && self.min_device_memory > ByteCount(0) {
            let message = "device cpu has no memory of its own: require memory instead of device memory";
            return Err(Refusal::invalid("requirements.min_device_memory_bytes", message));
        }
        Ok(self)
    }
}

fn device_kind(text: &str) -> Result<DeviceKind, Refusal> {
    [DeviceKind::Cpu, DeviceKind::Cuda].into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
        Refusal::invalid(
            "requirements.device_kind",
            format!("{} is not a kind of device: use cpu or cuda", words::quoted(text)),
        )
    })
}

impl fmt::Display for Requirements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.device_kind.map(|kind| format!("device={kind}"));
        let size = |key: &str, size: ByteCount| (size > ByteCount(0)).then(|| format!("{key}={size}"));
        let sizes = [size("memory", self.min_memory), size("device-memory", self.min_device_memory)];
        let labels = self.labels.iter().map(|(name, value)| format!("label.{name}={value}"));
        let items: Vec<String> = device.into_iter().chain(sizes.into_iter().flatten()).chain(labels).collect();
        f.write_str(&items.join(","))
    }
}

impl FromStr for Requirements {
    type Err = Refusal;
    fn from_str(text: &str) -> Result<Self, Refusal> {
        let mut requirements = Self::default();
        text.split(',').filter(|item| !item.is_empty()).try_for_each(|item| requirements.add(item))?;
        requirements.checked()
    }
}

impl TryFrom<String> for Requirements {
    type Error = Refusal;
    fn try_from(text: String) -> Result<Self, Refusal> {
        text.parse()
    }
}

impl From<Requirements> for String {
    fn from(requirements: Requirements) -> String {
        requirements.to_string()
    }
}

impl TryFrom<v1::Requirements> for Requirements {
    type Error = Refusal;
    fn try_from(wire: v1::Requirements) -> Result<Self, Refusal> {
        let at_field = |refusal: Refusal| refusal.at("requirements.labels");
        let label = |(name, value): (String, String)| Ok((name.parse()?, value.parse()?));
        let labels = wire.labels.into_iter().map(label).collect::<Result<_, Refusal>>().map_err(at_field)?;
        let device_kind = match wire.device_kind.as_str() {
            "" => None,
            text => Some(device_kind(text)?),
        };
        Self {
            device_kind,
            min_memory: ByteCount(wire.min_memory_bytes),
            min_device_memory: ByteCount(wire.min_device_memory_bytes),
            labels,
        }
        .checked()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_requirements_have_one_text_in_whatever_order_they_were_given() {
        let text = "device=cuda,memory=16GiB,device-memory=8GiB,label.a=1,label.zone=eu";
        let given = "label.zone=eu,device-memory=8192MiB,label.a=1,memory=17179869184,device=cuda";
        let requirements: Requirements = given.parse().expect("valid");
        assert_eq!(requirements.to_string(), text);
        let wire = requirements.clone().into_wire().expect("not empty");
        assert_eq!(Requirements::try_from(wire).expect("valid"), requirements);
        assert_eq!("".parse::<Requirements>().expect("valid"), Requirements::default());
        assert_eq!(Requirements::default().into_wire(), None);
    }

    #[test]
    fn requirements_that_nobody_could_meet_or_that_mean_nothing_are_refused() {
        for (text, says) in [
            ("device=tpu", "use cpu or cuda"),
            ("memory=lots", "write 500MiB"),
            ("memory=0", "leave it out"),
            ("memory=1GiB,memory=2GiB", "twice"),
            ("zone=eu", "label.NAME"),
            ("memory", "KEY=VALUE"),
            ("device=cpu,device-memory=1GiB", "no memory of its own"),
            ("label.=a", "not a label"),
        ] {
            assert!(text.parse::<Requirements>().expect_err(text).message.contains(says), "{text}");
        }
        let many: Vec<String> = (0..9).map(|n| format!("label.l{n}=x")).collect();
        assert!(many.join(",").parse::<Requirements>().expect_err("too many").message.contains("more than 8"));
        let labels = BTreeMap::from([("zone".to_owned(), "e u".to_owned())]);
        let refusal = Requirements::try_from(v1::Requirements { labels, ..Default::default() }).expect_err("a space");
        assert_eq!(refusal.field, "requirements.labels");
    }

    #[test]
    fn a_device_is_known_by_its_kind() {
        assert_eq!(DeviceKind::of_device("cuda:3"), Some(DeviceKind::Cuda));
        assert_eq!(DeviceKind::of_device("cpu"), Some(DeviceKind::Cpu));
        assert_eq!(DeviceKind::of_device(""), None);
    }
}
