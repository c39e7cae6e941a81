//! A list of paths on standard input: one a line, or with a NUL behind each, as `find -print0` writes it.

use std::{
    io::{self, BufRead, IsTerminal as _, Read as _},
    path::Path,
};

use sortinghat_client::folder::{Listing, Skipped};
use sortinghat_proto::{limits, manifest::LeftOutReason};

use super::{refuse_many, refuse_repeated, single_file};
use crate::{failure::Failure, session::Session};

/// Bytes of a line. No path of a file system is longer.
const MAX_LINE_BYTES: u64 = 64 << 10;

/// Lists the files that standard input names. Folders in the list are passed over, because `find` names both a folder and what is in it.
///
/// # Errors
/// [`Failure::Usage`] if a photo is named twice, or if there are too many.
pub(super) fn from_stdin(session: &Session) -> Result<Listing, Failure> {
    let input = io::stdin();
    if input.is_terminal() {
        session.hint("reading paths of photos from standard input, one a line; Ctrl-D ends the list");
    }
    read(input.lock())
}

fn read(mut input: impl BufRead) -> Result<Listing, Failure> {
    let failed = |error| Failure::file("read", "standard input")(error);
    let has_nul = input.fill_buf().map_err(failed)?.contains(&0);
    let end = if has_nul { 0 } else { b'\n' };
    let (mut listing, mut line) = (Listing::default(), Vec::new());
    loop {
        line.clear();
        let read = input.by_ref().take(MAX_LINE_BYTES).read_until(end, &mut line).map_err(failed)?;
        if read == 0 {
            break;
        }
        if line.last() == Some(&end) {
            line.pop();
        } else if read as u64 == MAX_LINE_BYTES {
            return Err(Failure::usage("a line of standard input is too long: write the path of one photo a line"));
        }
        if !has_nul && line.last() == Some(&b'\r') {
            line.pop();
        }
        add(&mut listing, &line);
        refuse_many(listing.files.len().max(listing.skipped.len()))?;
    }
    refuse_repeated(&listing)?;
    Ok(listing)
}

fn add(listing: &mut Listing, line: &[u8]) {
    let Ok(path) = str::from_utf8(line) else {
        let path = String::from_utf8_lossy(line).into_owned();
        listing.skipped.push(Skipped { path, reason: LeftOutReason::NotUtf8 });
        return;
    };
    let path = path.strip_prefix("./").unwrap_or(path);
    if path.is_empty() || Path::new(path).is_dir() {
        return;
    }
    if path.len() > limits::MAX_PATH_BYTES {
        listing.skipped.push(Skipped { path: path.to_owned(), reason: LeftOutReason::PathTooLong });
        return;
    }
    listing.files.push(single_file(path, Path::new(path)));
}

/// Refuses a path that does not begin in the current folder. Its first folder would be taken for a class.
pub(super) fn refuse_outer(listing: &Listing) -> Result<(), Failure> {
    let is_outer = |path: &str| path.starts_with('/') || path.split('/').any(|part| part == "..");
    match listing.files.iter().find(|file| is_outer(&file.path)) {
        Some(file) => Err(Failure::usage(format!(
            "the list names {}, and its first folder is no class: go to the folder that holds a folder for each class, and list \
             paths from there, such as CLASS/1.jpg",
            file.path
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(input: &[u8]) -> Vec<String> {
        read(input).expect("a list").files.into_iter().map(|file| file.path).collect()
    }

    #[test]
    fn paths_are_told_apart_by_lines_or_by_nuls() {
        assert_eq!(paths(b"./a/1.jpg\r\n\n/b c/2.jpg\n3.jpg"), ["a/1.jpg", "/b c/2.jpg", "3.jpg"]);
        assert_eq!(paths(b"a\n1.jpg\x00b.jpg\x00"), ["a\n1.jpg", "b.jpg"]);
        assert!(paths(b"").is_empty());
        assert!(paths(b".\n/\n").is_empty(), "folders are passed over");
    }

    #[test]
    fn what_cannot_be_a_path_is_left_out_or_refused() {
        let long = "a".repeat(limits::MAX_PATH_BYTES + 1);
        let listing = read(format!("{long}\n").as_bytes()).expect("a list");
        assert_eq!(listing.skipped[0].reason, LeftOutReason::PathTooLong);
        assert_eq!(read(b"\xff.jpg\n".as_slice()).expect("a list").skipped[0].reason, LeftOutReason::NotUtf8);
        assert!(read(b"1.jpg\n1.jpg\n".as_slice()).expect_err("twice").to_string().contains("named twice"));
        let endless = vec![b'a'; 1 << 17];
        assert!(read(endless.as_slice()).expect_err("no line").to_string().contains("too long"));
        for path in ["/a/1.jpg", "a/../1.jpg"] {
            let listing = read(path.as_bytes()).expect("a list");
            assert!(refuse_outer(&listing).expect_err(path).to_string().contains("CLASS/1.jpg"));
        }
    }
}
