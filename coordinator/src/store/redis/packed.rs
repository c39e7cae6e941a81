//! Writes MessagePack, which the script reads.

/// Why packing never fails.
const IN_MEMORY: &str = "a vector takes any length";

/// Packed values, one after the other.
#[derive(Default)]
pub(super) struct Packed(Vec<u8>);

impl Packed {
    /// Begins a list of this many items.
    pub(super) fn list(&mut self, items: usize) {
        let items = items.try_into().expect("a call and its batches are bounded");
        rmp::encode::write_array_len(&mut self.0, items).expect(IN_MEMORY);
    }

    /// Packs a number that the script calculates with. The script's numbers hold 53 bits.
    pub(super) fn number(&mut self, number: i64) -> &mut Self {
        rmp::encode::write_sint(&mut self.0, number).expect(IN_MEMORY);
        self
    }

    /// Packs a text.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// Packs bytes as a text, since the decoder of scripts has no other type for bytes. The text need not be UTF-8.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let length = bytes.len().try_into().expect("a batch is bounded");
        rmp::encode::write_str_len(&mut self.0, length).expect(IN_MEMORY);
        self.0.extend_from_slice(bytes);
        self
    }

    /// The packed values.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}
