//! The wall clock of the processes that tell the queue's time, which can be set.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::Failure;

const SOURCE: &str = include_str!("clock.c");

/// A clock that every process shares which was started with it. It is right until it is set.
pub(crate) struct WallClock {
    library: PathBuf,
    shift: PathBuf,
}

impl WallClock {
    /// Compiles what is preloaded. A clock that was set in an earlier run in the same folder stays as it was.
    pub(crate) fn build(folder: &Path) -> Result<Self, Failure> {
        let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
        fs::write(&source, SOURCE)?;
        let status = compiler().args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]).status()?;
        if !status.success() {
            return Err(format!("{} does not compile: {status}", source.display()).into());
        }
        let clock = Self { library, shift: folder.join("clock-shift") };
        if !clock.shift.exists() {
            clock.set_s(0)?;
        }
        Ok(clock)
    }

    /// Lets a process have this clock.
    pub(crate) fn give_to(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("CLOCK_SHIFT", &self.shift);
    }

    /// Sets it to this many seconds after the machine's own.
    pub(crate) fn set_s(&self, seconds: i64) -> Result<(), Failure> {
        // In place: the processes look at this very file.
        let file = File::options().create(true).truncate(false).write(true).open(&self.shift)?;
        Ok(file.write_all_at(&seconds.to_ne_bytes(), 0)?)
    }
}

/// The C compiler that the worker needs as well.
pub(crate) fn compiler() -> Command {
    Command::new("cc")
}
