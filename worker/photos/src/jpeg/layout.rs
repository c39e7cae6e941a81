//! How a JPEG is laid out: its frame, its scans, and what is missing. Only markers are read, no coded data.

/// The markers that matter here (ITU-T T.81, table B.1).
mod marker {
    pub(super) const HUFFMAN_TABLES: u8 = 0xc4;
    pub(super) const JPEG_EXTENSION: u8 = 0xc8;
    pub(super) const ARITHMETIC_CONDITIONING: u8 = 0xcc;
    pub(super) const END: u8 = 0xd9;
    pub(super) const SCAN: u8 = 0xda;
}

/// Coefficients of a block.
const COEFFICIENTS: usize = 64;

/// Which decoder is right about a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decoder {
    /// zune-jpeg.
    Fast,
    /// libjpeg-turbo, which is the measure of what is right.
    Exact,
}

/// The frame and the scans of a JPEG.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// The start-of-frame marker, which names the process; `None` if the file has no frame.
    process: Option<u8>,
    /// Bits of a sample.
    precision: u8,
    pub(super) width: u32,
    pub(super) height: u32,
    components: Vec<Component>,
    scans: usize,
    /// Whether a scan holds something else than all components in the order of the frame.
    is_split: bool,
    pub(super) has_huffman_tables: bool,
    /// Whether the end-of-image marker closes the last scan.
    pub(super) has_end: bool,
}

#[derive(Debug)]
struct Component {
    id: u8,
    /// Samples of this component across and down a unit of the picture.
    sampling: (u8, u8),
    /// For each coefficient the bits that are still missing; `None` until a scan holds the coefficient.
    missing_bits: [Option<u8>; COEFFICIENTS],
}

impl Layout {
    /// Walks the markers of a picture up to its end, or up to the first bytes after a scan that belong to no JPEG.
    pub(super) fn of(picture: &[u8]) -> Self {
        let mut layout = Self::default();
        let mut at = 2;
        while let Some(marker) = picture.get(at + 1).copied().filter(|_| picture[at] == 0xff) {
            if marker == 0xff {
                at += 1;
                continue;
            }
            if marker == marker::END {
                layout.has_end = layout.scans > 0;
                break;
            }
            let length =
                picture.get(at + 2..at + 4).map_or(0, |pair| usize::from(u16::from_be_bytes([pair[0], pair[1]])));
            let Some(data) = picture.get(at + 4..at + 2 + length) else { break };
            at += 2 + length;
            match marker {
                marker::HUFFMAN_TABLES => layout.has_huffman_tables = true,
                marker::JPEG_EXTENSION | marker::ARITHMETIC_CONDITIONING => {}
                0xc0..=0xcf => layout.read_frame(marker, data),
                marker::SCAN => {
                    layout.read_scan(data);
                    at += length_of_coded_data(&picture[at..]);
                }
                0xdb..=0xfe => {}
                _ => break,
            }
        }
        layout
    }

    fn read_frame(&mut self, process: u8, data: &[u8]) {
        let &[precision, y1, y0, x1, x0, _, ref components @ ..] = data else { return };
        self.process = Some(process);
        self.precision = precision;
        self.height = u16::from_be_bytes([y1, y0]).into();
        self.width = u16::from_be_bytes([x1, x0]).into();
        let missing_bits = [None; COEFFICIENTS];
        let component =
            |&[id, sampling, _]: &[u8; 3]| Component { id, sampling: (sampling >> 4, sampling & 15), missing_bits };
        self.components = components.as_chunks::<3>().0.iter().map(component).collect();
    }

    fn read_scan(&mut self, data: &[u8]) {
        self.scans += 1;
        let Some((count, rest)) = data.split_first() else { return };
        let Some((selectors, &[first, last, approximation])) = rest.split_at_checked(2 * usize::from(*count)) else {
            return;
        };
        let ids: Vec<u8> = selectors.as_chunks::<2>().0.iter().map(|selector| selector[0]).collect();
        self.is_split |= !ids.iter().eq(self.components.iter().map(|component| &component.id));
        let range = if self.is_progressive() { usize::from(first)..usize::from(last) + 1 } else { 0..COEFFICIENTS };
        let missing = if self.is_progressive() { approximation & 15 } else { 0 };
        for component in self.components.iter_mut().filter(|component| ids.contains(&component.id)) {
            component.missing_bits.get_mut(range.clone()).into_iter().flatten().for_each(|bits| *bits = Some(missing));
        }
    }

    fn is_progressive(&self) -> bool {
        self.process == Some(0xc2)
    }

    /// Whether the file says what picture it holds.
    pub(super) fn has_frame(&self) -> bool {
        self.process.is_some()
    }

    /// Whether some scan holds each component.
    pub(super) fn has_every_component(&self) -> bool {
        self.components.iter().all(|component| component.missing_bits[0].is_some())
    }

    /// Whether the scans hold every bit of every coefficient.
    pub(super) fn is_complete(&self) -> bool {
        self.components.iter().all(|component| component.missing_bits.iter().all(|bits| *bits == Some(0)))
    }

    /// Which decoder to use, or what about the picture neither reads.
    ///
    /// zune-jpeg is right about one scan of all components, and about progressive pictures whose scans hold everything, in
    /// the samplings that cameras write. Any other picture goes to libjpeg-turbo. `tests/jpeg_matrix` measures both.
    pub(super) fn decoder(&self) -> Result<Decoder, String> {
        match self.process {
            Some(0xc3) => return Err("lossless JPEG".into()),
            Some(0xc5..=0xc7) => return Err("hierarchical JPEG".into()),
            Some(0xc9..=0xcf) => return Err("arithmetic coding".into()),
            _ => {}
        }
        if self.process.is_some() && self.precision != 8 {
            return Err(format!("{} bits a sample", self.precision));
        }
        if !matches!(self.components.len(), 0 | 1 | 3 | 4) {
            return Err(format!("{} colour components", self.components.len()));
        }
        let is_plain = self.has_huffman_tables && self.has_end && self.has_plain_sampling();
        let is_whole = if self.is_progressive() { self.is_complete() } else { self.scans == 1 && !self.is_split };
        Ok(if is_plain && is_whole { Decoder::Fast } else { Decoder::Exact })
    }

    fn has_plain_sampling(&self) -> bool {
        match self.components.as_slice() {
            [grey] => grey.sampling == (1, 1),
            [luma, chroma @ ..] if chroma.len() == 2 => {
                let (across, down) = luma.sampling;
                // Where blocks reach beyond the picture, zune-jpeg interpolates chroma at the border with what lies outside.
                let fills_its_blocks =
                    (across == 1 || self.width.is_multiple_of(16)) && (down == 1 || self.height.is_multiple_of(16));
                let is_plain = matches!((across, down), (1, 1) | (2, 1) | (2, 2));
                is_plain && fills_its_blocks && chroma.iter().all(|component| component.sampling == (1, 1))
            }
            _ => false,
        }
    }
}

/// The bytes up to the next marker. In coded data a byte 0xff is followed by 0, or by a restart marker.
fn length_of_coded_data(data: &[u8]) -> usize {
    let mut at = 0;
    while let Some(next) = data[at..].iter().position(|byte| *byte == 0xff) {
        at += next;
        match data.get(at + 1) {
            Some(0x00 | 0xd0..=0xd7) => at += 2,
            _ => return at,
        }
    }
    data.len()
}
