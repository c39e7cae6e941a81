//! Archives that people have, and archives that somebody has made to do harm.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::PathBuf,
};

use rawzip::{CompressionMethod, ZipArchiveWriter};
use tar::EntryType;
use tempfile::TempDir;
use tokio::{sync::mpsc, time::Instant};

use super::*;

/// What became of each file of an archive: its content, or why it has none.
type Unpacked = Vec<(String, Result<Vec<u8>, String>)>;

struct Case {
    folder: TempDir,
}

impl Case {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).expect("writable");
        path
    }
}

/// Lists and unpacks an archive, as an upload does.
fn unpacked(path: &Path) -> Result<(Unpacked, Listing, u64), String> {
    let (listing, replaced) = list(path).map_err(|error| error.to_string())?;
    let wanted: Wanted =
        listing.files.iter().enumerate().map(|(slot, file)| (file.packed.expect("it is packed"), slot)).collect();
    let (sender, mut receiver) = mpsc::channel(1);
    let mut contents: Vec<_> = listing.files.iter().map(|file| (file.path.clone(), Err(String::new()))).collect();
    std::thread::scope(|threads| {
        let unpacking = threads.spawn(move || unpack(path, wanted, sender));
        while let Some(batch) = receiver.blocking_recv() {
            for (slot, file) in &batch.files {
                contents[*slot].1 =
                    file.as_ref().map(|file| fs::read(file.path()).expect("it was unpacked")).map_err(Clone::clone);
            }
        }
        unpacking.join().expect("no panic").map_err(|error| error.to_string())
    })?;
    Ok((contents, listing, replaced))
}

fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut made = Vec::new();
    let mut archive = ZipArchiveWriter::new(&mut made);
    for (name, content) in files {
        if name.ends_with('/') {
            archive.new_dir(*name).create().expect("memory is writable");
            continue;
        }
        let method = CompressionMethod::DEFLATE;
        let (mut entry, config) =
            archive.new_file(*name).compression_method(method).start().expect("memory is writable");
        let packer = flate2::write::DeflateEncoder::new(&mut entry, flate2::Compression::default());
        let mut writer = config.wrap(packer);
        writer.write_all(content).expect("memory is writable");
        let (packer, descriptor) = writer.finish().expect("memory is writable");
        packer.finish().expect("memory is writable");
        entry.finish(descriptor).expect("memory is writable");
    }
    archive.finish().expect("memory is writable");
    made
}

/// A tar of entries with any names, which the builder would refuse.
fn tar(entries: &[(EntryType, &str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (kind, name, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_cksum();
        archive.append(&header, *content).expect("memory is writable");
    }
    archive.into_inner().expect("memory is writable")
}

fn zstd(content: &[u8]) -> Vec<u8> {
    let mut packer = zstd::Encoder::new(Vec::new(), 1).expect("memory is writable");
    packer.include_checksum(true).expect("it can");
    packer.write_all(content).expect("memory is writable");
    packer.finish().expect("memory is writable")
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(content).expect("memory is writable");
    packer.finish().expect("memory is writable")
}

fn why(contents: &Unpacked, path: &str) -> String {
    let (_, content) = contents.iter().find(|(name, _)| name == path).unwrap_or_else(|| panic!("no {path}"));
    content.clone().expect_err(path)
}

#[test]
fn an_archive_in_any_format_has_the_files_of_its_folder_in_their_order() {
    let long = format!("dogs/{}.jpg", "long".repeat(40));
    let files: [(&str, &[u8]); 7] = [
        ("./dogs/b.jpg", b"b"),
        ("cats/a.jpg", b"a"),
        ("empty/", b""),
        ("__MACOSX/cats/._a.jpg", b"litter"),
        (".hidden/c.jpg", b"hidden"),
        ("dogs/Thumbs.db", b"litter"),
        (&long, b"long"),
    ];
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(if name.ends_with('/') { EntryType::Directory } else { EntryType::Regular });
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, content).expect("memory is writable");
    }
    let tar = archive.into_inner().expect("memory is writable");
    let case = Case::new();
    for (name, content) in [
        ("a.zip", zip(&files)),
        ("a.tar", tar.clone()),
        ("A.TAR.ZST", zstd(&tar)),
        ("a.tzst", zstd(&tar)),
        ("a.tar.gz", gzip(&tar)),
        ("a.tgz", gzip(&tar)),
    ] {
        let (contents, listing, replaced) = unpacked(&case.write(name, &content)).expect(name);
        let expected = [("cats/a.jpg", b"a".as_slice()), ("dogs/b.jpg", b"b"), (&long, b"long")];
        let expected = expected.map(|(path, content)| (path.to_owned(), Ok(content.to_vec())));
        assert_eq!((contents.as_slice(), replaced), (expected.as_slice(), 0), "{name}");
        let skipped: Vec<_> = listing.skipped.iter().map(|one| (one.path.as_str(), one.reason)).collect();
        assert_eq!(
            skipped,
            [
                (".hidden/", LeftOutReason::Hidden),
                ("__MACOSX/", LeftOutReason::Litter),
                ("dogs/Thumbs.db", LeftOutReason::Litter),
                ("empty/", LeftOutReason::EmptyFolder),
            ],
            "{name}"
        );
    }
}

#[test]
fn paths_that_lead_out_links_devices_and_archives_inside_are_set_aside_with_the_reason() {
    let case = Case::new();
    let tar = tar(&[
        (EntryType::Regular, "../../evil.jpg", b"evil"),
        (EntryType::Regular, "/etc/passwd", b"absolute"),
        (EntryType::Symlink, "cats/link.jpg", b""),
        (EntryType::Link, "cats/hard.jpg", b""),
        (EntryType::Char, "cats/tty", b""),
        (EntryType::Fifo, "cats/pipe", b""),
        (EntryType::Regular, "cats/more.zip", b"PK"),
        (EntryType::Regular, "cats/a.jpg", b"old"),
        (EntryType::Regular, "cats/a.jpg", b"new"),
    ]);
    let path = case.write("a.tar", &tar);
    let (contents, listing, replaced) = unpacked(&path).expect("it is whole");
    assert!(why(&contents, "../../evil.jpg").contains("leads out"));
    assert!(why(&contents, "cats/link.jpg").contains("link") && why(&contents, "cats/hard.jpg").contains("link"));
    assert!(why(&contents, "cats/more.zip").contains("archive in an archive"));
    assert!(contents.contains(&("etc/passwd".to_owned(), Ok(b"absolute".to_vec()))), "it is a file of the archive");
    assert!(contents.contains(&("cats/a.jpg".to_owned(), Ok(b"new".to_vec()))) && replaced == 1);
    assert_eq!(listing.skipped.iter().filter(|one| one.reason == LeftOutReason::Special).count(), 2);
    // The writer would make the path harmless.
    let mut made = zip(&[("a/xx/xx/evil.jpg", b"evil")]);
    let places: Vec<usize> = (0..made.len() - 2).filter(|at| made[*at..].starts_with(b"xx")).collect();
    places.into_iter().for_each(|at| made[at..at + 2].copy_from_slice(b".."));
    let (contents, ..) = unpacked(&case.write("a.zip", &made)).expect("it is whole");
    assert!(why(&contents, "a/../../evil.jpg").contains("leads out"));
    assert_eq!(fs::read_dir(case.folder.path()).expect("readable").count(), 2, "nothing was written beside them");
    assert!(!case.folder.path().join("../evil.jpg").exists());
}

/// The places of the headers of a zip's central directory.
fn central(zip: &[u8]) -> Vec<usize> {
    (0..zip.len() - 4).filter(|at| zip[*at..].starts_with(b"PK\x01\x02")).collect()
}

#[test]
fn an_entry_that_is_encrypted_damaged_or_not_as_it_says_costs_only_itself() {
    let case = Case::new();
    let files: [(&str, &[u8]); 5] = [
        ("1.jpg", b"encrypted"),
        ("2.jpg", b"wrong checksum"),
        ("3.jpg", b"longer"),
        ("4.jpg", b"method"),
        ("5.jpg", b"whole"),
    ];
    let mut made = zip(&files);
    let headers = central(&made);
    made[headers[0] + 8] |= 1;
    made[headers[1] + 16] ^= 1;
    made[headers[2] + 24] = 3;
    made[headers[3] + 10] = 99;
    let (contents, ..) = unpacked(&case.write("a.zip", &made)).expect("its directory is whole");
    assert!(why(&contents, "1.jpg").contains("password"), "{contents:?}");
    assert!(why(&contents, "2.jpg").contains("cannot be unpacked"), "{contents:?}");
    assert!(!why(&contents, "3.jpg").is_empty(), "{contents:?}");
    assert!(why(&contents, "4.jpg").contains("method"), "{contents:?}");
    assert_eq!(contents[4].1, Ok(b"whole".to_vec()));
}

#[test]
fn an_archive_that_is_cut_off_or_damaged_is_refused_before_anything_is_unpacked() {
    let case = Case::new();
    let noise: Vec<u8> = (0_u32..30_000).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let tar = tar(&[(EntryType::Regular, "cats/a.jpg", &noise), (EntryType::Regular, "cats/b.jpg", &noise)]);
    for (name, whole) in [
        ("a.zip", zip(&[("cats/a.jpg", &noise), ("cats/b.jpg", &noise)])),
        ("a.tar", tar.clone()),
        ("a.tar.zst", zstd(&tar)),
        ("a.tar.gz", gzip(&tar)),
    ] {
        for part in [0, 1, whole.len() / 3, whole.len() * 2 / 3] {
            let path = case.write(name, &whole[..part]);
            match list(&path) {
                Err(error) => assert!(error.to_string().contains(name), "{error}"),
                // No byte at all is a tar without entries.
                Ok((listing, _)) => assert!(part == 0 && listing.files.is_empty(), "{name}: {part}"),
            }
        }
        let mut wrong = whole.clone();
        let place = if name == "a.zip" { central(&whole)[1] } else { whole.len() / 2 };
        wrong[place] ^= 0x55;
        let is_checked = name != "a.tar";
        assert_eq!(list(&case.write(name, &wrong)).is_err(), is_checked, "{name}");
    }
}

/// Refuses an archive. The bound has room for a build that is not optimised, on a machine that does much else.
fn refused_soon(path: &Path, why: &str) {
    let since = Instant::now();
    let error = list(path).expect_err("it is a bomb").to_string();
    assert!(error.contains(why), "{error}");
    assert!(since.elapsed().as_secs_f64() < 30.0, "{:?}", since.elapsed());
}

#[test]
fn bombs_are_refused_soon() {
    let case = Case::new();
    let size = 1_u64 << 30;
    let mut header = tar::Header::new_gnu();
    header.set_path("cats/zeros.jpg").expect("short");
    header.set_size(size);
    header.set_cksum();
    let zeros = || header.as_bytes().as_slice().chain(std::io::repeat(0).take(size + 1024));
    let mut packer = zstd::Encoder::new(Vec::new(), 1).expect("memory is writable");
    std::io::copy(&mut zeros(), &mut packer).expect("memory is writable");
    refused_soon(&case.write("zeros.tar.zst", &packer.finish().expect("memory is writable")), "200 times");

    // Each entry has the same 1 MiB of the archive for its content.
    let noise: Vec<u8> = (0_u32..1 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let one = zip(&[("cats/a.jpg", &noise)]);
    let header = central(&one)[0];
    let end = (header..one.len()).find(|at| one[*at..].starts_with(b"PK\x05\x06")).expect("an end");
    let entries = 60_000_u16;
    let mut bomb = one[..header].to_vec();
    (0..entries).for_each(|_| bomb.extend_from_slice(&one[header..end]));
    let (mut last, bytes) = (one[end..].to_vec(), (end - header) as u32 * u32::from(entries));
    last[8..10].copy_from_slice(&entries.to_le_bytes());
    last[10..12].copy_from_slice(&entries.to_le_bytes());
    last[12..16].copy_from_slice(&bytes.to_le_bytes());
    bomb.extend_from_slice(&last);
    refused_soon(&case.write("overlap.zip", &bomb), "200 times");

    let zeros = vec![0; 2 << 20];
    let (contents, ..) = unpacked(&case.write("zeros.zip", &zip(&[("zeros.jpg", &zeros)]))).expect("it is whole");
    assert!(why(&contents, "zeros.jpg").contains("200 times"));
    let huge = case.write("huge.tar", &[]);
    fs::File::create(&huge).and_then(|mut file| file.write_all(&header_of_huge())).expect("writable");
    fs::File::options().write(true).open(&huge).and_then(|file| file.set_len((257 << 20) + 2048)).expect("sparse");
    let (contents, ..) = unpacked(&huge).expect("it is whole");
    assert!(why(&contents, "huge.jpg").contains("256 MiB"));
}

fn header_of_huge() -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path("huge.jpg").expect("short");
    header.set_size(257 << 20);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn an_archive_with_too_many_entries_is_refused_without_reading_them_all_into_memory() {
    let case = Case::new();
    let mut header = tar::Header::new_gnu();
    header.set_path("cats/a.jpg").expect("short");
    header.set_size(0);
    header.set_cksum();
    let block = header.as_bytes().to_vec();
    let path = case.write("many.tar", &[]);
    let mut file = std::io::BufWriter::new(fs::File::create(&path).expect("writable"));
    (0..=limits::MAX_UPLOAD_FILES).for_each(|_| file.write_all(&block).expect("writable"));
    file.write_all(&[0; 1024]).and_then(|()| file.flush()).expect("writable");
    refused_soon(&path, "1000000 entries");

    // A zip states how many entries it has. Nobody looks for them.
    let mut end = b"PK\x06\x06".to_vec();
    end.extend(44_u64.to_le_bytes());
    end.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    [1_000_001_u64, 1_000_001, 46_000_046, 0].iter().for_each(|number| end.extend(number.to_le_bytes()));
    end.extend(b"PK\x06\x07\0\0\0\0");
    let mut zip = vec![0; 46_000_046];
    end.extend((zip.len() as u64).to_le_bytes());
    end.extend(1_u32.to_le_bytes());
    end.extend(b"PK\x05\x06\0\0\0\0");
    end.extend([0xff; 12]);
    end.extend([0, 0]);
    zip.extend(end);
    refused_soon(&case.write("many.zip", &zip), "1000000 entries");
}
