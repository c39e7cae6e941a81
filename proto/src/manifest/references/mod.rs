//! Which objects a document names, whatever its format.
//!
//! Nothing lists the fields of a format: every text that looks like a digest counts as one. A field that is added later, or a
//! format that this software does not know, is heeded all the same, and an object that is named by chance is merely kept.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{Document as _, UploadManifest};
use crate::{Digest, ObjectRef};

/// What a document names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// Its format; empty if it states none.
    pub format: String,
    /// Objects that it names by digest and length: its parts.
    pub objects: Vec<ObjectRef>,
    /// Digests without a length: it mentions these, and does not need them.
    pub mentions: Vec<Digest>,
}

impl References {
    /// Whether its parts may be documents themselves. Those of an upload are photos, and there are very many of them.
    pub fn may_be_documents(&self) -> bool {
        self.format != UploadManifest::FORMAT
    }
}

/// What the document in `bytes` names; `None` if it is no JSON.
pub fn references(bytes: &[u8]) -> Option<References> {
    let mut found = References::default();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    Scan { found: &mut found, is_whole: true }.deserialize(&mut json).ok()?;
    json.end().ok()?;
    Some(found)
}

/// Every digest that occurs as text in an encoded message; more, where hexadecimal digits stand before or after one.
pub fn digests_in(message: &[u8]) -> impl Iterator<Item = Digest> {
    let digits = message.windows(HEX_DIGITS).filter(|text| text.iter().all(u8::is_ascii_hexdigit));
    digits.filter_map(|text| digest(std::str::from_utf8(text).ok()?))
}

/// Digits of a digest.
const HEX_DIGITS: usize = 64;

/// Finds digests in a value of any shape.
struct Scan<'a> {
    found: &'a mut References,
    /// The value is the document, not a part of it.
    is_whole: bool,
}

impl Scan<'_> {
    /// For a value inside this one.
    fn inside(&mut self) -> Scan<'_> {
        Scan { found: self.found, is_whole: false }
    }
}

/// What a value turned out to be, for the object that it is a field of.
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

/// A text that is a digest, or ends in one behind a colon: `object:DIGEST`.
fn digest(text: &str) -> Option<Digest> {
    let last = text.rsplit(':').next().filter(|last| last.len() == HEX_DIGITS)?;
    last.parse().ok()
}

#[cfg(test)]
mod tests;
