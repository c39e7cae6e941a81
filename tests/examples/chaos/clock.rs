//! A wall clock that can be set, for the processes that tell the queue's time.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::Failure;

const SOURCE: &str = include_str!("clock.c");

/// A clock that all processes share which were started with it. It shows the right time until it is set.
pub(crate) struct WallClock {
    library: PathBuf,
    shift: PathBuf,
}

impl WallClock {
    /// Compiles the preloaded library. A clock that was set by an earlier run in the same folder stays as it was.
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

    /// Gives a process this clock.
    pub(crate) fn give_to(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("CLOCK_SHIFT", &self.shift);
    }

    /// Sets the clock to this many seconds after the machine's clock.
    pub(crate) fn set_s(&self, seconds: i64) -> Result<(), Failure> {
        // Written in place, since the processes have mapped this very file.
        let file = File::options().create(true).truncate(false).write(true).open(&self.shift)?;
        Ok(file.write_all_at(&seconds.to_ne_bytes(), 0)?)
    }
}

/// The C compiler, which the worker needs as well.
pub(crate) fn compiler() -> Command {
    Command::new("cc")
}
