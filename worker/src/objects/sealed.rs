//! Content in a memory file that nobody can change any more, so that whoever gets it may look twice.

use std::{
    fs::File,
    io::{self, Seek as _, Write as _},
    os::fd::{AsFd, OwnedFd},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};

/// What keeps the content from changing.
const SEALS: SealFlag = SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_WRITE);

/// How often a file that is busy is tried to be sealed again, and the pause before that.
const MOST_TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// An empty memory file, to be written and then sealed.
pub(crate) fn memory_file() -> io::Result<File> {
    Ok(memfd_create(c"sortinghat", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?.into())
}

/// Seals a memory file. Whoever gets it reads it from the beginning.
#[expect(clippy::disallowed_methods, reason = "a thread of a job or of the disk waits, on which no async task runs")]
pub(crate) fn seal(mut file: File) -> io::Result<OwnedFd> {
    file.rewind()?;
    let mut tries = 0;
    loop {
        match fcntl(&file, FcntlArg::F_ADD_SEALS(SEALS | SealFlag::F_SEAL_SEAL)) {
            // Somebody, such as the kernel while it looks for memory that is not used, holds a page for a moment.
            Err(Errno::EBUSY) if tries < MOST_TRIES => tries += 1,
            sealed => {
                sealed?;
                return Ok(file.into());
            }
        }
        thread::sleep(PAUSE);
    }
}

/// This content, sealed.
pub(crate) fn sealed(content: &[u8]) -> io::Result<OwnedFd> {
    let mut file = memory_file()?;
    file.write_all(content)?;
    seal(file)
}

/// Whether nobody can change what this file holds. Only memory files have seals.
pub(crate) fn is_sealed(file: impl AsFd) -> bool {
    let seals = fcntl(file, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_truncate);
    seals.is_ok_and(|seals| seals.contains(SEALS))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn sealed_content_cannot_be_changed_and_anything_else_is_noticed() {
        let mut file = File::from(sealed(b"a photo").unwrap());
        assert!(is_sealed(&file));
        assert_eq!(io::read_to_string(&mut file).unwrap(), "a photo");
        assert!(file.write_at(b"A", 0).is_err() && file.set_len(1).is_err() && file.set_len(100).is_err());
        assert!(!is_sealed(memory_file().unwrap()));
        assert!(!is_sealed(tempfile::tempfile().unwrap()));
        let half = memory_file().unwrap();
        fcntl(&half, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)).unwrap();
        assert!(!is_sealed(&half), "it can still grow");
    }
}
