//! The vital signs of this process: whether there is room in the folders of this machine, and whether the queue's store answers. It looks
//! at them again and again, refuses new work while there is no room, and tells health checks. The process goes on in any case, and takes new
//! work again by itself. A bucket is not looked at: the workers prove that they can use it, before each of them claims.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::statvfs::statvfs;
use sortinghat_proto::{Refusal, v1::ErrorCode};
use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{api, engine::Engine};

/// How often to look.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// With less room than this, new work is refused, so that the work that was taken can be recorded to its end.
const RESERVE_BYTES: u64 = 8 << 20;
/// The file that a look writes.
const PROBE: &str = ".room";

/// Why a folder cannot take more.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum NoRoom {
    /// There is hardly any room left.
    #[error("only {free_bytes} bytes are left for {folder}: make room")]
    Full { folder: String, free_bytes: u64 },
    /// The folder cannot be written.
    #[error("failed to write into {folder}: {reason}")]
    Unwritable { folder: String, reason: String },
}

/// Looks at the vital signs until it is dropped.
pub(super) struct Vitals {
    pub(super) engine: Engine,
    pub(super) health: HealthReporter,
    /// The folders that take the queue and the objects.
    pub(super) folders: Vec<PathBuf>,
}

impl Vitals {
    /// Looks at intervals until `stop` is cancelled.
    pub(super) async fn run(self, stop: CancellationToken) {
        let looks = async {
            let mut before = None;
            loop {
                self.look(&mut before).await;
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        tokio::select! {
            () = looks => {}
            () = stop.cancelled() => {}
        }
    }

    /// Looks once, and says what has changed. `before` is what kept the process from working at the last look.
    async fn look(&self, before: &mut Option<String>) {
        let folders = self.folders.clone();
        let look = tokio::task::spawn_blocking(move || folders.iter().find_map(|folder| room_in(folder).err()));
        let no_room = look.await.expect("a look into a folder does not panic");
        self.engine.take_work(no_room.as_ref().map(|_| {
            let message = "the server has no room for more: try again when whoever runs it has made room; jobs that it has taken go on";
            Refusal::new(ErrorCode::StorageUnusable, message)
        }));
        let trouble = match no_room {
            Some(no_room) => Some(no_room.to_string()),
            None => self.engine.check_work().await.err().map(|error| error.to_string()),
        };
        let status = if trouble.is_none() { ServingStatus::Serving } else { ServingStatus::NotServing };
        api::report_readiness(&self.health, status).await;
        match (&trouble, &*before) {
            (Some(trouble), None) => tracing::error!(trouble, "not ready for new work"),
            (None, Some(_)) => tracing::info!("ready for new work again"),
            _ => {}
        }
        *before = trouble;
    }
}

/// Finds out whether a folder can take more.
fn room_in(folder: &Path) -> Result<(), NoRoom> {
    let name = || folder.display().to_string();
    let unwritable = |error: io::Error| NoRoom::Unwritable { folder: name(), reason: error.to_string() };
    let volume = statvfs(folder).map_err(io::Error::from).map_err(unwritable)?;
    let free_bytes = volume.blocks_available() * volume.fragment_size();
    if free_bytes < RESERVE_BYTES {
        return Err(NoRoom::Full { folder: name(), free_bytes });
    }
    // A quota, or a disk that has become read-only, does not show in the number of free blocks.
    let probe = folder.join(PROBE);
    fs::write(&probe, PROBE).map_err(unwritable)?;
    match fs::remove_file(&probe) {
        // Another coordinator, which has the same folder, was faster.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(unwritable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_written_is_named_with_the_reason() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(room_in(folder.path()), Ok(()));
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0, "the probe is removed");
        let gone = folder.path().join("gone");
        let error = room_in(&gone).expect_err("it does not exist").to_string();
        assert!(error.contains(&gone.display().to_string()) && error.contains("No such file"), "{error}");
    }
}
