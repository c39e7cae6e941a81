//! Writes JPEG files from coefficients, in any layout of scans that ITU-T T.81 allows with Huffman coding.
//!
//! No encoder that is at hand writes all of them. The tables of codes are the simplest ones: all codes of a table have one length.

/// Coefficients of a block, in zigzag order.
pub(crate) type Block = [i32; 64];

/// Length of the codes of the DC table, which holds the sizes 0 to 11.
const DC_CODE_BITS: u32 = 4;
const DC_SYMBOLS: u8 = 12;
/// Length of the codes of the AC table, which holds every byte.
const AC_CODE_BITS: u32 = 9;
const QUANTIZER: u8 = 8;

/// The process that the frame names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Process {
    Baseline = 0xc0,
    Extended = 0xc1,
    Progressive = 0xc2,
}

/// What says how the components are to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    None,
    Jfif,
    /// Adobe's marker with this transform.
    Adobe(u8),
}

/// A picture before it is coded.
#[derive(Debug)]
pub(crate) struct Picture {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) header: Header,
    pub(crate) components: Vec<Component>,
}

#[derive(Debug)]
pub(crate) struct Component {
    pub(crate) id: u8,
    pub(crate) sampling: (usize, usize),
    /// Blocks in a row of `blocks`, with those that only fill up a unit.
    pub(crate) columns: usize,
    pub(crate) blocks: Vec<Block>,
}

/// A scan: its components, the range of coefficients, and the bits that were sent before and that are left out.
#[derive(Debug, Clone)]
pub(crate) struct Scan {
    pub(crate) components: Vec<usize>,
    pub(crate) coefficients: (usize, usize),
    pub(crate) approximation: (u32, u32),
}

impl Picture {
    /// Largest sampling factors.
    fn largest(&self) -> (usize, usize) {
        let all = || self.components.iter().map(|component| component.sampling);
        (all().map(|(across, _)| across).max().unwrap_or(1), all().map(|(_, down)| down).max().unwrap_or(1))
    }

    /// Units of interleaved scans across and down.
    pub(crate) fn units(&self) -> (usize, usize) {
        let (across, down) = self.largest();
        (self.width.div_ceil(8 * across), self.height.div_ceil(8 * down))
    }

    /// Blocks that a scan of this component alone holds, across and down.
    fn own_blocks(&self, component: &Component) -> (usize, usize) {
        let ((across, down), (h, v)) = (self.largest(), component.sampling);
        ((self.width * h).div_ceil(across).div_ceil(8), (self.height * v).div_ceil(down).div_ceil(8))
    }

    /// The file with these scans and a restart after each `restart` units, 0 for none.
    pub(crate) fn encode(&self, process: Process, scans: &[Scan], restart: usize) -> Vec<u8> {
        let mut file = b"\xff\xd8".to_vec();
        match self.header {
            Header::None => {}
            Header::Jfif => segment(&mut file, 0xe0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"),
            Header::Adobe(transform) => {
                segment(&mut file, 0xee, &[b"Adobe\0\x64\0\0\0\0".as_slice(), &[transform]].concat())
            }
        }
        segment(&mut file, 0xdb, &[[0].as_slice(), &[QUANTIZER; 64]].concat());
        let mut frame = vec![8];
        frame.extend((self.height as u16).to_be_bytes());
        frame.extend((self.width as u16).to_be_bytes());
        frame.push(self.components.len() as u8);
        for Component { id, sampling: (h, v), .. } in &self.components {
            frame.extend([*id, (h << 4 | v) as u8, 0]);
        }
        segment(&mut file, process as u8, &frame);
        segment(&mut file, 0xc4, &table(0x00, DC_CODE_BITS, 0..=DC_SYMBOLS - 1));
        segment(&mut file, 0xc4, &table(0x10, AC_CODE_BITS, 0..=255));
        if restart > 0 {
            segment(&mut file, 0xdd, &(restart as u16).to_be_bytes());
        }
        for scan in scans {
            let mut header = vec![scan.components.len() as u8];
            scan.components.iter().for_each(|index| header.extend([self.components[*index].id, 0]));
            let ((first, last), (sent, left)) = (scan.coefficients, scan.approximation);
            header.extend([first as u8, last as u8, (sent << 4 | left) as u8]);
            segment(&mut file, 0xda, &header);
            file.extend(self.coded(scan, process == Process::Progressive, restart));
        }
        file.extend(b"\xff\xd9");
        file
    }

    fn coded(&self, scan: &Scan, is_progressive: bool, restart: usize) -> Vec<u8> {
        let mut coder = Coder { scan, is_progressive, ..Coder::new(scan) };
        for (index, unit) in self.blocks_of(scan).iter().enumerate() {
            if restart > 0 && index > 0 && index % restart == 0 {
                coder.restart((index / restart - 1) % 8);
            }
            unit.iter().for_each(|(component, block)| coder.block(*component, block));
        }
        coder.finish()
    }

    /// The blocks of each unit of a scan, with their components.
    fn blocks_of(&self, scan: &Scan) -> Vec<Vec<(usize, &Block)>> {
        let block = |index: usize, x: usize, y: usize| {
            let component = &self.components[index];
            (index, &component.blocks[y * component.columns + x])
        };
        if let [alone] = scan.components[..] {
            let (across, down) = self.own_blocks(&self.components[alone]);
            return (0..across * down).map(|at| vec![block(alone, at % across, at / across)]).collect();
        }
        let (across, down) = self.units();
        let unit = |at: usize| {
            let (left, top) = (at % across, at / across);
            let of_component = |index: &usize| {
                let ((h, v), index) = (self.components[*index].sampling, *index);
                (0..h * v).map(move |k| block(index, left * h + k % h, top * v + k / h))
            };
            scan.components.iter().flat_map(of_component).collect()
        };
        (0..across * down).map(unit).collect()
    }
}

fn segment(file: &mut Vec<u8>, marker: u8, data: &[u8]) {
    file.extend([0xff, marker]);
    file.extend((data.len() as u16 + 2).to_be_bytes());
    file.extend(data);
}

/// A table in which the symbol at `index` has the code `index` of `bits` bits.
fn table(class: u8, bits: u32, symbols: impl Iterator<Item = u8>) -> Vec<u8> {
    let symbols: Vec<u8> = symbols.collect();
    let mut counts = [0; 16];
    // A count is a byte, so the last of 256 codes is longer.
    let longer = symbols.len().saturating_sub(255);
    counts[bits as usize - 1] = (symbols.len() - longer) as u8;
    counts[bits as usize] = longer as u8;
    [[class].as_slice(), &counts, &symbols].concat()
}

struct Coder<'a> {
    scan: &'a Scan,
    is_progressive: bool,
    bytes: Vec<u8>,
    pending: u64,
    pending_bits: u32,
    /// The last DC value of each component.
    predictions: [i32; 4],
    /// Blocks that end at once, not yet written.
    ended: u32,
    /// Bits that correct coefficients of those blocks.
    corrections: Vec<u32>,
}

impl<'a> Coder<'a> {
    fn new(scan: &'a Scan) -> Self {
        Self {
            scan,
            is_progressive: false,
            bytes: Vec::new(),
            pending: 0,
            pending_bits: 0,
            predictions: [0; 4],
            ended: 0,
            corrections: Vec::new(),
        }
    }

    fn bits(&mut self, value: u32, count: u32) {
        self.pending = self.pending << count | u64::from(value) & ((1 << count) - 1);
        self.pending_bits += count;
        while self.pending_bits >= 8 {
            self.pending_bits -= 8;
            let byte = (self.pending >> self.pending_bits) as u8;
            self.bytes.push(byte);
            if byte == 0xff {
                self.bytes.push(0);
            }
        }
    }

    fn dc_symbol(&mut self, size: u32) {
        self.bits(size, DC_CODE_BITS);
    }

    fn ac_symbol(&mut self, symbol: u32) {
        // The code after the 255 short ones, with a bit more.
        if symbol == 255 { self.bits(255 << 1, AC_CODE_BITS + 1) } else { self.bits(symbol, AC_CODE_BITS) }
    }

    /// A value's bits: negative ones as the complement of their amount.
    fn amount(&mut self, value: i32) {
        self.bits(if value < 0 { value - 1 } else { value } as u32, size_of(value));
    }

    fn block(&mut self, component: usize, block: &Block) {
        let (first, last) = self.scan.coefficients;
        let (sent, left) = self.scan.approximation;
        if first == 0 {
            if sent > 0 {
                self.bits((block[0] >> left) as u32 & 1, 1);
            } else {
                let value = block[0] >> left;
                let difference = value - std::mem::replace(&mut self.predictions[component], value);
                self.dc_symbol(size_of(difference));
                self.amount(difference);
            }
        }
        if last > 0 {
            if sent > 0 { self.refine(block) } else { self.first_pass(block) }
        }
    }

    /// The AC coefficients of a block, without the bits that are left out.
    fn first_pass(&mut self, block: &Block) {
        let ((first, last), left) = (self.scan.coefficients, self.scan.approximation.1);
        let mut zeros = 0;
        for coefficient in &block[first.max(1)..=last] {
            let value = (coefficient.abs() >> left) * coefficient.signum();
            if value == 0 {
                zeros += 1;
                continue;
            }
            self.end_blocks();
            while zeros > 15 {
                self.ac_symbol(0xf0);
                zeros -= 16;
            }
            self.ac_symbol(zeros << 4 | size_of(value));
            self.amount(value);
            zeros = 0;
        }
        if zeros > 0 {
            self.ended += 1;
            if !self.is_progressive || self.ended == 0x7fff {
                self.end_blocks();
            }
        }
    }

    /// One more bit of AC coefficients (T.81, figure G.7).
    fn refine(&mut self, block: &Block) {
        let ((first, last), left) = (self.scan.coefficients, self.scan.approximation.1);
        let amounts: Vec<u32> = block.iter().map(|coefficient| coefficient.unsigned_abs() >> left).collect();
        let last_new = (first..=last).rev().find(|k| amounts[*k] == 1);
        let (mut zeros, mut corrections) = (0, Vec::new());
        for k in first..=last {
            if amounts[k] == 0 {
                zeros += 1;
                continue;
            }
            while zeros > 15 && last_new.is_some_and(|last_new| k <= last_new) {
                self.end_blocks();
                self.ac_symbol(0xf0);
                zeros -= 16;
                self.correct(&mut corrections);
            }
            if amounts[k] > 1 {
                corrections.push(amounts[k] & 1);
                continue;
            }
            self.end_blocks();
            self.ac_symbol(zeros << 4 | 1);
            self.bits(u32::from(block[k] > 0), 1);
            self.correct(&mut corrections);
            zeros = 0;
        }
        if zeros > 0 || !corrections.is_empty() {
            self.ended += 1;
            self.corrections.append(&mut corrections);
            if self.ended == 0x7fff || self.corrections.len() > 900 {
                self.end_blocks();
            }
        }
    }

    fn correct(&mut self, corrections: &mut Vec<u32>) {
        corrections.drain(..).for_each(|bit| self.bits(bit, 1));
    }

    /// Writes that so many blocks have ended.
    fn end_blocks(&mut self) {
        if self.ended == 0 {
            return;
        }
        let exponent = self.ended.ilog2();
        self.ac_symbol(exponent << 4);
        self.bits(self.ended, exponent);
        self.ended = 0;
        let mut corrections = std::mem::take(&mut self.corrections);
        self.correct(&mut corrections);
    }

    fn fill_byte(&mut self) {
        self.end_blocks();
        let missing = (8 - self.pending_bits % 8) % 8;
        self.bits(u32::MAX, missing);
    }

    fn restart(&mut self, number: usize) {
        self.fill_byte();
        self.bytes.extend([0xff, 0xd0 + number as u8]);
        self.predictions = [0; 4];
    }

    fn finish(mut self) -> Vec<u8> {
        self.fill_byte();
        self.bytes
    }
}

/// Bits that the amount of a value needs.
fn size_of(value: i32) -> u32 {
    32 - value.unsigned_abs().leading_zeros()
}
