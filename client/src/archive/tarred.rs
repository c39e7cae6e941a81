//! Tar archives, which are one stream.

use std::{
    cell::Cell,
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
    rc::Rc,
};

use flate2::bufread::MultiGzDecoder;
use sortinghat_proto::limits;
use tar::{EntryType, PaxExtensions};

use super::{Archive, Entry, Kind, MAX_RATIO, UNSUSPICIOUS_IN_ALL_BYTES, Visitor, copy, too_large, too_many};

/// Bytes of what an archive says of an entry before it: a long name, or a list of properties.
const MAX_EXTENSION_BYTES: u64 = 64 << 10;

pub(super) fn visit(path: &Path, archive: Archive, visitor: &mut dyn Visitor) -> io::Result<()> {
    let packed_bytes = Rc::new(Cell::new(0));
    let packed = BufReader::new(Counted { inner: File::open(path)?, bytes: Rc::clone(&packed_bytes) });
    let unpacked: Box<dyn Read> = match archive {
        Archive::TarZstd => Box::new(zstd::Decoder::with_buffer(packed)?),
        Archive::TarGzip => Box::new(MultiGzDecoder::new(packed)),
        Archive::Tar | Archive::Zip => return entries(packed, visitor),
    };
    entries(Bounded { inner: unpacked, bytes: 0, packed_bytes }, visitor)
}

fn entries(stream: impl Read, visitor: &mut dyn Visitor) -> io::Result<()> {
    let mut archive = tar::Archive::new(stream);
    let (mut name, mut number) = (None, 0);
    // Long names are read here, because the library would read one of any length into memory.
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry.map_err(damaged)?;
        if number >= limits::MAX_UPLOAD_FILES as u64 {
            return Err(too_many());
        }
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName => {
                let mut long = extension(&mut entry)?;
                long.truncate(long.iter().position(|byte| *byte == 0).unwrap_or(long.len()));
                name = Some(long);
                continue;
            }
            EntryType::XHeader => {
                let properties = extension(&mut entry)?;
                let paths = PaxExtensions::new(&properties).flatten().filter(|one| one.key_bytes() == b"path");
                name = paths.map(|one| one.value_bytes().to_vec()).last().or(name);
                continue;
            }
            EntryType::GNULongLink | EntryType::XGlobalHeader => continue,
            _ => {}
        }
        let own = name.take().unwrap_or_else(|| entry.header().path_bytes().into_owned());
        let size_bytes = entry.header().entry_size().map_err(damaged)?;
        let kind = kind_of(kind, &own);
        let shown = Entry { number, name: str::from_utf8(&own).ok(), kind, size_bytes, refused: None };
        number += 1;
        if let Some(to) = visitor.begin(&shown)? {
            visitor.end(copy(&mut entry, size_bytes, to))?;
        }
    }
    // What the compression states of the whole is checked at its end.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(damaged)?;
    Ok(())
}

fn kind_of(kind: EntryType, name: &[u8]) -> Kind {
    match kind {
        // Old archives mark folders by their names alone.
        EntryType::Regular | EntryType::Continuous if name.ends_with(b"/") => Kind::Folder,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
        EntryType::Directory => Kind::Folder,
        EntryType::Link | EntryType::Symlink => Kind::Link,
        _ => Kind::Special,
    }
}

fn extension(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    entry.take(MAX_EXTENSION_BYTES + 1).read_to_end(&mut content).map_err(damaged)?;
    if content.len() as u64 > MAX_EXTENSION_BYTES {
        return Err(io::Error::other("it is damaged: the name of an entry is too long"));
    }
    Ok(content)
}

fn damaged(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("it is damaged or cut off: {error}"))
}

/// Counts what is read.
struct Counted<R> {
    inner: R,
    bytes: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes.set(self.bytes.get() + read as u64);
        Ok(read)
    }
}

/// Ends where much more comes out than photos would give.
struct Bounded<R> {
    inner: R,
    bytes: u64,
    packed_bytes: Rc<Cell<u64>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes += read as u64;
        if self.bytes > UNSUSPICIOUS_IN_ALL_BYTES && self.bytes > self.packed_bytes.get().saturating_mul(MAX_RATIO) {
            return Err(too_large());
        }
        Ok(read)
    }
}
