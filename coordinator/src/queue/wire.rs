//! Serialises parts of stored JSON. Protobuf messages are stored as base64, so that protobuf's own rules for old readers and new fields apply.

use std::{fmt, marker::PhantomData};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use prost::Message;
use serde::{
    Deserializer, Serializer,
    de::{Error, Visitor},
};

/// Whether a value need not be written, since a reader takes this value where none is.
pub fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Writes a message.
pub fn serialize<M: Message, S: Serializer>(message: &M, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD_NO_PAD.encode(message.encode_to_vec()))
}

/// Reads a message.
pub fn deserialize<'de, M: Message + Default, D: Deserializer<'de>>(deserializer: D) -> Result<M, D::Error> {
    deserializer.deserialize_str(Text(PhantomData))
}

struct Text<M>(PhantomData<M>);

impl<M: Message + Default> Visitor<'_> for Text<M> {
    type Value = M;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a protobuf message in base64")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<M, E> {
        M::decode(STANDARD_NO_PAD.decode(text).map_err(E::custom)?.as_slice()).map_err(E::custom)
    }
}

/// Serialises a message that may be missing.
pub mod optional {
    use prost::Message;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize)]
    #[serde(bound = "M: Message")]
    struct Written<'m, M>(#[serde(serialize_with = "write")] &'m M);

    #[derive(Deserialize)]
    #[serde(bound = "M: Message + Default")]
    struct Read<M>(#[serde(with = "super")] M);

    fn write<M: Message, S: Serializer>(message: &&M, serializer: S) -> Result<S::Ok, S::Error> {
        super::serialize(*message, serializer)
    }

    /// Writes a message, or nothing.
    pub fn serialize<M: Message, S: Serializer>(message: &Option<M>, serializer: S) -> Result<S::Ok, S::Error> {
        message.as_ref().map(Written).serialize(serializer)
    }

    /// Reads a message, or nothing.
    pub fn deserialize<'de, M: Message + Default, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<M>, D::Error> {
        Ok(Option::<Read<M>>::deserialize(deserializer)?.map(|read| read.0))
    }
}
