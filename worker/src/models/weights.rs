//! Reads and writes weights by name as safetensors. No other format is read, and libtorch sees no byte before the header has been
//! checked.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use safetensors::tensor::{Dtype, SafeTensors, View};
use tch::{Device, Kind, TchError, Tensor, no_grad};

/// Weights could not be read or used.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The bytes are no safetensors file: a broken header, offsets outside the file, an unknown type.
    #[error("the weights are not a valid safetensors file: {reason}")]
    Malformed {
        /// What the header check found.
        reason: String,
    },
    /// A tensor of a type that no network here has.
    #[error("weight {name} has type {dtype}; allowed are F32, F16 and BF16")]
    Dtype {
        /// The tensor.
        name: String,
        /// Its type in the header.
        dtype: String,
    },
    /// The file belongs to another network.
    #[error("weight {name} has shape {found:?}, but the network needs {needed:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// In the file.
        found: Vec<i64>,
        /// In the network.
        needed: Vec<i64>,
    },
    /// The file lacks tensors.
    #[error("the weights lack {count} tensors that the network needs; the first is {first}")]
    Missing {
        /// How many.
        count: usize,
        /// The first by name.
        first: String,
    },
    /// The file has tensors that belong nowhere in the network.
    #[error("the weights have {count} tensors that the network does not know; the first is {first}")]
    Unexpected {
        /// How many.
        count: usize,
        /// The first by name.
        first: String,
    },
    /// libtorch could not hold or copy a tensor.
    #[error("failed to copy weight {name}: {source}")]
    Tch {
        /// The tensor.
        name: String,
        /// libtorch's reason.
        source: TchError,
    },
}

/// Tensors by name, on the host, f32.
#[derive(Debug)]
pub struct StateDict {
    tensors: BTreeMap<String, Tensor>,
    notes: HashMap<String, String>,
}

impl StateDict {
    /// Reads a safetensors file.
    ///
    /// F16 and BF16 become F32. `num_batches_tracked` counters are left out.
    ///
    /// # Errors
    /// [`WeightsError::Malformed`] or [`WeightsError::Dtype`], before any tensor is made.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self, WeightsError> {
        let file =
            SafeTensors::deserialize(bytes).map_err(|error| WeightsError::Malformed { reason: error.to_string() })?;
        let wanted = || file.iter().filter(|(name, _)| !name.ends_with(".num_batches_tracked"));
        let kinds = wanted()
            .map(|(name, view)| match view.dtype() {
                Dtype::F32 => Ok(Kind::Float),
                Dtype::F16 => Ok(Kind::Half),
                Dtype::BF16 => Ok(Kind::BFloat16),
                other => Err(WeightsError::Dtype { name: name.to_owned(), dtype: format!("{other:?}") }),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut tensors = BTreeMap::new();
        for ((name, view), kind) in wanted().zip(kinds) {
            let shape = dimensions(name, view.shape())?;
            let tensor = Tensor::f_from_data_size(view.data(), &shape, kind)
                .and_then(|tensor| tensor.f_to_kind(Kind::Float))
                .map_err(|source| WeightsError::Tch { name: name.to_owned(), source })?;
            tensors.insert(name.to_owned(), tensor);
        }
        let (_, header) =
            SafeTensors::read_metadata(bytes).map_err(|error| WeightsError::Malformed { reason: error.to_string() })?;
        Ok(Self { tensors, notes: header.metadata().clone().unwrap_or_default() })
    }

    /// Writes tensors as a safetensors file, f32.
    ///
    /// # Errors
    /// When a tensor cannot be copied to the host.
    pub fn serialize<'a>(tensors: impl Iterator<Item = (&'a str, &'a Tensor)>) -> Result<Vec<u8>, WeightsError> {
        HostTensors::copy(tensors)?.into_safetensors(HashMap::new())
    }

    /// A note from the header.
    #[must_use]
    pub fn note(&self, name: &str) -> Option<&str> {
        self.notes.get(name).map(String::as_str)
    }

    /// The tensor `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Copies into every target the tensor of its name; `may_remain` tells which others the file may hold.
    ///
    /// # Errors
    /// Missing, unexpected or misshapen tensors, before the first copy.
    pub fn copy_into<'a>(
        &self,
        targets: impl Iterator<Item = (String, &'a Tensor)>,
        may_remain: impl Fn(&str) -> bool,
    ) -> Result<(), WeightsError> {
        let targets = targets.collect::<Vec<_>>();
        self.check_names(&targets, may_remain)?;
        for (name, target) in &targets {
            let (found, needed) = (self.tensors[name].size(), target.size());
            if found != needed {
                return Err(WeightsError::Shape { name: name.clone(), found, needed });
            }
        }
        for (name, target) in targets {
            let mut target = target.shallow_clone();
            no_grad(|| target.f_copy_(&self.tensors[&name])).map_err(|source| WeightsError::Tch { name, source })?;
        }
        Ok(())
    }

    fn check_names(
        &self,
        targets: &[(String, &Tensor)],
        may_remain: impl Fn(&str) -> bool,
    ) -> Result<(), WeightsError> {
        let needed = targets.iter().map(|(name, _)| name.as_str()).collect::<BTreeSet<_>>();
        let found = self.tensors.keys().map(String::as_str).collect::<BTreeSet<_>>();
        let missing = needed.difference(&found).collect::<Vec<_>>();
        if let Some(first) = missing.first() {
            return Err(WeightsError::Missing { count: missing.len(), first: (**first).to_owned() });
        }
        let unexpected = found.difference(&needed).filter(|name| !may_remain(name)).collect::<Vec<_>>();
        if let Some(first) = unexpected.first() {
            return Err(WeightsError::Unexpected { count: unexpected.len(), first: (**first).to_owned() });
        }
        Ok(())
    }
}

fn dimensions(name: &str, shape: &[usize]) -> Result<Vec<i64>, WeightsError> {
    let too_large = |_| WeightsError::Malformed { reason: format!("{name} has an impossible shape {shape:?}") };
    shape.iter().map(|&extent| i64::try_from(extent)).collect::<Result<_, _>>().map_err(too_large)
}

/// Copies of tensors in the host's memory. No step of training changes them any more, so another thread can write them.
#[derive(Debug)]
pub(crate) struct HostTensors(Vec<(String, HostTensor)>);

impl HostTensors {
    /// Copies these tensors.
    ///
    /// # Errors
    /// [`WeightsError::Tch`] when memory runs out.
    pub(crate) fn copy<'a>(tensors: impl Iterator<Item = (&'a str, &'a Tensor)>) -> Result<Self, WeightsError> {
        let copies = tensors.map(|(name, tensor)| Ok((name.to_owned(), HostTensor::new(name, tensor)?)));
        copies.collect::<Result<Vec<_>, WeightsError>>().map(Self)
    }

    /// The name of the first one with NaN or an infinity in it.
    pub(crate) fn not_a_number(&self) -> Option<&str> {
        self.0.iter().find(|(_, tensor)| !tensor.is_finite()).map(|(name, _)| name.as_str())
    }

    /// A safetensors file of them, f32, with notes in its header.
    ///
    /// # Errors
    /// [`WeightsError::Malformed`] when two have the same name.
    pub(crate) fn into_safetensors(self, notes: HashMap<String, String>) -> Result<Vec<u8>, WeightsError> {
        let notes = (!notes.is_empty()).then_some(notes);
        safetensors::serialize(self.0, notes).map_err(|error| WeightsError::Malformed { reason: error.to_string() })
    }
}

/// A tensor's values on the host, row by row, ready for safetensors.
#[derive(Debug)]
struct HostTensor {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl HostTensor {
    fn new(name: &str, tensor: &Tensor) -> Result<Self, WeightsError> {
        let copy = || {
            let host = tensor.detach().f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
            let mut bytes = vec![0; host.numel() * size_of::<f32>()];
            host.f_copy_data_u8(&mut bytes, host.numel())?;
            Ok(bytes)
        };
        let bytes = copy().map_err(|source| WeightsError::Tch { name: name.to_owned(), source })?;
        let extent = |extent| usize::try_from(extent).expect("a tensor's extents are not negative");
        Ok(Self { shape: tensor.size().into_iter().map(extent).collect(), bytes })
    }

    fn is_finite(&self) -> bool {
        let (values, _) = self.bytes.as_chunks();
        values.iter().all(|value| f32::from_ne_bytes(*value).is_finite())
    }
}

impl View for HostTensor {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(tensors: &[(&str, Tensor)]) -> Vec<u8> {
        StateDict::serialize(tensors.iter().map(|(name, tensor)| (*name, tensor))).unwrap()
    }

    #[test]
    fn values_survive_a_file_whatever_their_layout_in_memory() {
        let nhwc = crate::aten::channels_last(&Tensor::rand([2, 3, 4, 5], (Kind::Float, Device::Cpu))).unwrap();
        let scalar = Tensor::from(0.25_f32);
        let read = StateDict::from_safetensors(&file(&[("a", nhwc.shallow_clone()), ("b", scalar)])).unwrap();
        assert_eq!(read.get("a").unwrap(), &nhwc);
        assert_eq!(read.get("b").unwrap().double_value(&[]), 0.25);
    }

    #[test]
    fn truncated_lying_and_foreign_files_are_refused_by_their_header() {
        let good = file(&[("a", Tensor::rand([8], (Kind::Float, Device::Cpu)))]);
        let mut endless = good.clone();
        endless[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        let overlapping = br#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,8]}}"#;
        let mut lying = (overlapping.len() as u64).to_le_bytes().to_vec();
        lying.extend_from_slice(overlapping);
        lying.extend_from_slice(&[0; 8]);
        for bytes in [&good[..good.len() - 1], &endless, &lying, b"\x80\x02}q\x00.", b""] {
            let error = StateDict::from_safetensors(bytes).unwrap_err();
            assert!(matches!(error, WeightsError::Malformed { .. }), "{error}");
        }
    }

    #[test]
    fn integer_weights_are_refused_by_name() {
        let header = br#"{"steps.count":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header);
        bytes.extend_from_slice(&[0; 8]);
        let message = StateDict::from_safetensors(&bytes).unwrap_err().to_string();
        assert!(message.contains("steps.count has type I64"), "{message}");
    }

    #[test]
    fn missing_unexpected_and_misshapen_tensors_are_named_and_nothing_is_copied() {
        let values = |count| Tensor::ones([count], (Kind::Float, Device::Cpu));
        let weights = StateDict::from_safetensors(&file(&[("a", values(2)), ("extra", values(1))])).unwrap();
        let copy = |targets: &[(&str, &Tensor)], allowed: bool| {
            weights.copy_into(targets.iter().map(|(name, tensor)| ((*name).to_owned(), *tensor)), |_| allowed)
        };
        let (two, three) = (values(2) * 0.0, values(3));
        assert!(matches!(copy(&[("a", &two)], false), Err(WeightsError::Unexpected { count: 1, .. })));
        assert!(matches!(copy(&[("a", &two), ("b", &two)], true), Err(WeightsError::Missing { count: 1, .. })));
        assert!(matches!(copy(&[("a", &three)], true), Err(WeightsError::Shape { .. })));
        assert_eq!(two.sum(Kind::Float).double_value(&[]), 0.0);
        copy(&[("a", &two)], true).unwrap();
        assert_eq!(two.sum(Kind::Float).double_value(&[]), 2.0);
    }
}
