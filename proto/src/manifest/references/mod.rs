//! Which objects a document names, whatever its format.
//!
//! The search does not know the fields of a format: every text that looks like a digest counts as one. So it also finds digests in fields
//! that were added later and in formats that this software does not know. A text that looks like a digest by chance does no harm: an
//! object with this digest, if there is one, is kept.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{Document as _, UploadManifest};
use crate::{Digest, ObjectRef};

/// The digests in a document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// The format of the document; empty if it states none.
    pub format: String,
    /// Objects that the document names by digest and length: its parts.
    pub objects: Vec<ObjectRef>,
    /// Digests without a length. The document mentions these objects, but does not need them.
    pub mentions: Vec<Digest>,
}

impl References {
    /// Whether the parts may be documents themselves. The parts of an upload are photos, and there are very many of them.
    pub fn may_be_documents(&self) -> bool {
        self.format != UploadManifest::FORMAT
    }
}

/// The digests in the document in `bytes`; `None` if it is not JSON.
pub fn references(bytes: &[u8]) -> Option<References> {
    let mut found = References::default();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    Scan { found: &mut found, is_whole: true }.deserialize(&mut json).ok()?;
    json.end().ok()?;
    Some(found)
}

/// Every digest that occurs as text in an encoded message. If further hexadecimal digits stand before or after a digest, the result also
/// has digests that overlap it.
pub fn digests_in(message: &[u8]) -> impl Iterator<Item = Digest> {
    let digits = message.windows(HEX_DIGITS).filter(|text| text.iter().all(u8::is_ascii_hexdigit));
    digits.filter_map(|text| digest(std::str::from_utf8(text).ok()?))
}

/// Digits of a digest.
const HEX_DIGITS: usize = 64;

/// Collects the digests of a JSON value of any shape.
struct Scan<'a> {
    found: &'a mut References,
    /// Whether the value is the whole document, which states the format.
    is_whole: bool,
}

impl Scan<'_> {
    /// The search in a value inside this one.
    fn inside(&mut self) -> Scan<'_> {
        Scan { found: self.found, is_whole: false }
    }
}

/// What a value is, for the JSON object that has it as a field.
enum Seen {
    Digest(Digest),
    Number(u64),
    Other,
}

impl<'de> DeserializeSeed<'de> for Scan<'_> {
    type Value = Seen;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Seen, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scan<'_> {
    type Value = Seen;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Seen, E> {
        Ok(Seen::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Seen, E> {
        Ok(Seen::Other)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Seen, E> {
        Ok(Seen::Number(number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Seen, E> {
        Ok(Seen::Other)
    }

    fn visit_unit<E>(self) -> Result<Seen, E> {
        Ok(Seen::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Seen, E> {
        Ok(digest(text).map_or(Seen::Other, Seen::Digest))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Seen, A::Error> {
        while let Some(seen) = items.next_element_seed(self.inside())? {
            self.found.mentions.extend(seen.digest());
        }
        Ok(Seen::Other)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<Seen, A::Error> {
        let (mut named, mut size_bytes) = (None, None);
        while let Some(key) = fields.next_key::<String>()? {
            self.found.mentions.extend(digest(&key));
            if key == "format" && self.is_whole {
                self.found.format = fields.next_value()?;
                continue;
            }
            match fields.next_value_seed(self.inside())? {
                Seen::Digest(digest) if key == "digest" => self.found.mentions.extend(named.replace(digest)),
                Seen::Number(number) if key == "size_bytes" => size_bytes = Some(number),
                seen => self.found.mentions.extend(seen.digest()),
            }
        }
        match (named, size_bytes) {
            (Some(digest), Some(size_bytes)) => self.found.objects.push(ObjectRef { digest, size_bytes }),
            (named, _) => self.found.mentions.extend(named),
        }
        Ok(Seen::Other)
    }
}

impl Seen {
    fn digest(self) -> Option<Digest> {
        match self {
            Self::Digest(digest) => Some(digest),
            Self::Number(_) | Self::Other => None,
        }
    }
}

/// The digest in a text that is a digest, or ends with a colon and a digest: `object:DIGEST`.
fn digest(text: &str) -> Option<Digest> {
    let last = text.rsplit(':').next().filter(|last| last.len() == HEX_DIGITS)?;
    last.parse().ok()
}

#[cfg(test)]
mod tests;
