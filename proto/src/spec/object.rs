//! References to objects of the object store.

use serde::{Deserialize, Serialize};

use crate::{Digest, Refusal, v1};

/// An immutable object: its digest and its length.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ObjectRef {
    /// SHA-256 of the content.
    pub digest: Digest,
    /// Length of the content in bytes.
    pub size_bytes: u64,
}

impl ObjectRef {
    /// The reference to `content`.
    pub fn of(content: &[u8]) -> Self {
        Self { digest: Digest::of(content), size_bytes: content.len() as u64 }
    }
}

impl TryFrom<v1::ObjectRef> for ObjectRef {
    type Error = Refusal;

    fn try_from(wire: v1::ObjectRef) -> Result<Self, Refusal> {
        Ok(Self { digest: wire.digest.parse()?, size_bytes: wire.size_bytes })
    }
}

impl From<ObjectRef> for v1::ObjectRef {
    fn from(object: ObjectRef) -> Self {
        Self { digest: object.digest.into(), size_bytes: object.size_bytes }
    }
}
