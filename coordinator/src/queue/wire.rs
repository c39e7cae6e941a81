//! Protobuf messages inside stored JSON, as hexadecimal text: they keep protobuf's own rules for old readers and new fields.

use prost::Message;
use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

/// Writes a message.
pub fn serialize<M: Message, S: Serializer>(message: &M, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(message.encode_to_vec()))
}

/// Reads a message.
pub fn deserialize<'de, M: Message + Default, D: Deserializer<'de>>(deserializer: D) -> Result<M, D::Error> {
    let bytes = hex::decode(String::deserialize(deserializer)?).map_err(D::Error::custom)?;
    M::decode(bytes.as_slice()).map_err(D::Error::custom)
}

/// The same for a message that may be missing.
pub mod optional {
    use prost::Message;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(bound = "M: Message + Default")]
    struct Present<M>(#[serde(with = "super")] M);

    /// Writes a message, or nothing.
    pub fn serialize<M: Message + Default + Clone, S: Serializer>(
        message: &Option<M>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        message.clone().map(Present).serialize(serializer)
    }

    /// Reads a message, or nothing.
    pub fn deserialize<'de, M: Message + Default, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<M>, D::Error> {
        Ok(Option::<Present<M>>::deserialize(deserializer)?.map(|present| present.0))
    }
}
