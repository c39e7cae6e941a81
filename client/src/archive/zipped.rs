//! Zip archives, in the order of their central directory, which is never whole in memory.

use std::{fs::File, io, path::Path};

use flate2::read::DeflateDecoder;
use rawzip::{CompressionMethod, RECOMMENDED_BUFFER_SIZE, ZipArchive, ZipFileHeaderRecord};
use sortinghat_proto::limits;

use super::{
    Entry, Kind, MAX_RATIO, UNSUSPICIOUS_BYTES, UNSUSPICIOUS_IN_ALL_BYTES, Visitor, copy, too_large, too_many,
};

/// The bits of a file's mode that say what it is, and some of their values.
const FILE_TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const SYMBOLIC_LINK: u32 = 0o120_000;

pub(super) fn visit(path: &Path, visitor: &mut dyn Visitor) -> io::Result<()> {
    let file = File::open(path)?;
    let most_bytes = file.metadata()?.len().saturating_mul(MAX_RATIO).max(UNSUSPICIOUS_IN_ALL_BYTES);
    let mut buffer = vec![0; RECOMMENDED_BUFFER_SIZE];
    let archive = ZipArchive::from_file(file, &mut buffer).map_err(damaged)?;
    let promised = archive.entries_hint();
    if promised > limits::MAX_UPLOAD_FILES as u64 {
        return Err(too_many());
    }
    let (mut number, mut bytes) = (0, 0_u64);
    let mut entries = archive.entries(&mut buffer);
    while let Some(found) = entries.next_entry().map_err(damaged)? {
        if number >= limits::MAX_UPLOAD_FILES as u64 {
            return Err(too_many());
        }
        let size_bytes = found.uncompressed_size_hint();
        let name = found.file_path();
        let refused = refused(&found);
        // Many entries can have the same bytes of the archive for their content.
        bytes = bytes.saturating_add(if refused.is_none() { size_bytes.min(limits::MAX_PHOTO_BYTES) } else { 0 });
        if bytes > most_bytes {
            return Err(too_large());
        }
        let entry =
            Entry { number, name: str::from_utf8(name.as_bytes()).ok(), kind: kind(&found), size_bytes, refused };
        number += 1;
        let Some(to) = visitor.begin(&entry)? else { continue };
        let method = found.compression_method();
        let written = match archive.get_entry(found.wayfinder()) {
            Ok(packed) if method == CompressionMethod::STORE => {
                copy(packed.verifying_reader(packed.reader()), size_bytes, to)
            }
            Ok(packed) => copy(packed.verifying_reader(DeflateDecoder::new(packed.reader())), size_bytes, to),
            Err(error) => Err(format!("it cannot be unpacked: {error}")),
        };
        visitor.end(written)?;
    }
    match number == promised {
        true => Ok(()),
        false => Err(io::Error::other(format!("it is damaged: {number} of {promised} entries are in its directory"))),
    }
}

fn kind(found: &ZipFileHeaderRecord) -> Kind {
    if found.is_dir() {
        return Kind::Folder;
    }
    // Archives that were not made on Unix state no type.
    match found.mode().value() & FILE_TYPE {
        0 | REGULAR => Kind::File,
        SYMBOLIC_LINK => Kind::Link,
        _ => Kind::Special,
    }
}

fn refused(found: &ZipFileHeaderRecord) -> Option<String> {
    if found.flags().is_encrypted() {
        return Some("it is encrypted: unpack the archive with its password, and name the folder".to_owned());
    }
    if ![CompressionMethod::STORE, CompressionMethod::DEFLATE].contains(&found.compression_method()) {
        return Some(
            "it is compressed by a method that is not read: unpack the archive, and name the folder".to_owned(),
        );
    }
    let (size, most) = (found.uncompressed_size_hint(), found.compressed_size_hint().saturating_mul(MAX_RATIO));
    (size > UNSUSPICIOUS_BYTES && size > most)
        .then(|| format!("it unpacks to more than {MAX_RATIO} times its size, which no photo does"))
}

fn damaged(error: rawzip::Error) -> io::Error {
    io::Error::other(format!("it is damaged or cut off: {error}"))
}
