//! Proves again and again, with the worker's own credentials, that the object store and the data folder can be used.
//!
//! A proof reads the id of the queue in the store. At the start and after every doubt it also writes: into the store, the data folder and
//! the cache.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use sortinghat_objects::{Environment, ObjectStoreUrl, OpenError, Opened, Patience, Trouble as StoreTrouble};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

use super::health::{Proof, Trouble};

/// A store that has not answered within this time does not answer.
const BOUND: Duration = Duration::from_secs(3);
const PATIENCE: Patience = Patience { request: BOUND, retries: 0, retry_for: BOUND };
/// The pause between two proofs while tasks run, and while the worker cannot work. A task that hangs is explained within seconds.
const SHORT_PAUSE: Duration = Duration::from_secs(3);
/// The pause while the worker is idle.
const LONG_PAUSE: Duration = Duration::from_secs(30);
/// What a proof writes into the data folder, in bytes: more than what a full disk still has here and there.
const PROBE_BYTES: usize = 1 << 20;

/// What a proof has shown, and how many doubts there were when it was begun.
pub(super) type Counted = (u64, Result<Proof, Trouble>);

/// A folder into which the worker writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Folder {
    /// "data folder".
    pub(super) what: &'static str,
    /// Where it is.
    pub(super) path: PathBuf,
}

/// What the session wants to have proved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Demand {
    /// How often a task has failed because of the store.
    doubts: u64,
    /// Whether tasks run.
    is_busy: bool,
}

/// A prover, as the session holds it. Its task ends when this is dropped.
#[derive(Debug)]
pub(super) struct Prover {
    demand: watch::Sender<Demand>,
    proofs: mpsc::Receiver<Counted>,
}

impl Prover {
    /// Starts to prove that the store at this URL and these folders can be used.
    pub(super) fn start(url: &ObjectStoreUrl, folders: Vec<Folder>) -> Result<Self, OpenError> {
        let store = sortinghat_objects::open(url, PATIENCE, &Environment::of_process())?;
        let (demand, demanded) = watch::channel(Demand::default());
        let (sender, proofs) = mpsc::channel(1);
        tokio::spawn(run(store, folders, demanded, sender));
        Ok(Self { demand, proofs })
    }

    /// A prover whose proofs the test makes.
    #[cfg(test)]
    pub(super) fn by_hand() -> (Self, mpsc::Sender<Counted>) {
        let (sender, proofs) = mpsc::channel(1);
        (Self { demand: watch::channel(Demand::default()).0, proofs }, sender)
    }

    /// Asks for a proof that writes. Proofs that were begun before do not count.
    pub(super) fn doubt(&self) {
        self.demand.send_modify(|demand| demand.doubts += 1);
    }

    /// Notes whether tasks run.
    pub(super) fn set_busy(&self, is_busy: bool) {
        self.demand.send_if_modified(|demand| std::mem::replace(&mut demand.is_busy, is_busy) != is_busy);
    }

    /// A proof that counts and has come already.
    pub(super) fn try_next(&mut self) -> Option<Result<Proof, Trouble>> {
        while let Ok((doubts, proof)) = self.proofs.try_recv() {
            if self.counts(doubts, &proof) {
                return Some(proof);
            }
        }
        None
    }

    /// The next proof that counts. The future may be dropped, and the call repeated.
    pub(super) async fn next(&mut self) -> Result<Proof, Trouble> {
        while let Some((doubts, proof)) = self.proofs.recv().await {
            if self.counts(doubts, &proof) {
                return proof;
            }
        }
        std::future::pending().await
    }

    fn counts(&self, doubts: u64, proof: &Result<Proof, Trouble>) -> bool {
        proof.is_err() || doubts == self.demand.borrow().doubts
    }
}

async fn run(store: Opened, folders: Vec<Folder>, mut demand: watch::Receiver<Demand>, proofs: mpsc::Sender<Counted>) {
    let mut disproved = None;
    loop {
        let now = *demand.borrow_and_update();
        let writes = disproved != Some(now.doubts);
        let mut work = tokio::spawn(prove(store.clone(), folders.clone(), writes));
        // Work that hangs is waited for, since more of it would hang, too.
        let proof = loop {
            match timeout(BOUND + Duration::from_secs(1), &mut work).await {
                Ok(joined) => break joined.unwrap_or_else(|_| Err(unanswered(&store))),
                Err(_) if proofs.send((now.doubts, Err(unanswered(&store)))).await.is_err() => return,
                Err(_) => {}
            }
        };
        disproved = proof.is_ok().then_some(now.doubts);
        let pause = if proof.is_err() || now.is_busy { SHORT_PAUSE } else { LONG_PAUSE };
        if proofs.send((now.doubts, proof)).await.is_err() {
            return;
        }
        let is_urgent = |next: &Demand| next.doubts != now.doubts || (next.is_busy && !now.is_busy);
        tokio::select! {
            () = sleep(pause) => {}
            gone = demand.wait_for(is_urgent) => if gone.is_err() { return },
        }
    }
}

async fn prove(store: Opened, folders: Vec<Folder>, writes: bool) -> Result<Proof, Trouble> {
    let failed = |error: object_store::Error| Trouble {
        reason: StoreTrouble::of(&error).in_words().to_owned(),
        detail: StoreTrouble::in_detail(&error),
    };
    let queue = store.queue_id().await.map_err(failed)?;
    if writes {
        store.write_probe().await.map_err(failed)?;
        for Folder { what, path } in folders {
            let folder = path.clone();
            let written = tokio::task::spawn_blocking(move || write_probe(&folder)).await;
            written.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| Trouble {
                reason: format!("it cannot write into its {what}"),
                detail: format!("it cannot write into its {what} ({}: {error}): make room", path.display()),
            })?;
        }
    }
    Ok(Proof { address: store.address, queue })
}

/// Writes a temporary file.
fn write_probe(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut file: File = tempfile::tempfile_in(folder)?;
    file.write_all(&vec![0; PROBE_BYTES])
}

fn unanswered(store: &Opened) -> Trouble {
    let seconds = BOUND.as_secs() + 1;
    Trouble {
        reason: format!("the object store has not answered for {seconds} s"),
        detail: format!("the object store {} has not answered for {seconds} s: it is asked again", store.address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(path: PathBuf) -> Vec<Folder> {
        vec![Folder { what: "data folder", path }]
    }

    async fn first_proof(url: &ObjectStoreUrl, temporary_dir: PathBuf) -> Result<Proof, Trouble> {
        Prover::start(url, data(temporary_dir)).expect("a folder opens").next().await
    }

    #[tokio::test]
    async fn a_folder_that_can_be_written_is_proved_with_the_queue_that_it_belongs_to() {
        let folder = tempfile::tempdir().unwrap();
        let url = ObjectStoreUrl::of_folder(&folder.path().join("objects")).unwrap();
        let proof = first_proof(&url, folder.path().join("tmp")).await.unwrap();
        assert_eq!(proof.queue, None);
        fs::write(folder.path().join("objects/queue-id"), "ours\n").unwrap();
        let proof = first_proof(&url, folder.path().join("tmp")).await.unwrap();
        assert_eq!(proof.queue.as_deref(), Some("ours"));
        let left: Vec<_> = fs::read_dir(folder.path().join("objects")).unwrap().collect();
        assert_eq!(left.len(), 1, "the probe is removed: {left:?}");
    }

    #[tokio::test]
    async fn a_data_folder_that_cannot_be_written_is_told_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let url = ObjectStoreUrl::of_folder(&folder.path().join("objects")).unwrap();
        // A file where the folder should be.
        fs::write(folder.path().join("tmp"), "").unwrap();
        let trouble = first_proof(&url, folder.path().join("tmp")).await.unwrap_err();
        assert!(trouble.detail.contains(folder.path().to_str().unwrap()), "{}", trouble.detail);
        assert!(!trouble.reason.contains(folder.path().to_str().unwrap()), "{}", trouble.reason);
    }

    #[tokio::test]
    async fn a_doubt_is_answered_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let url = ObjectStoreUrl::of_folder(&folder.path().join("objects")).unwrap();
        let mut prover = Prover::start(&url, data(folder.path().join("tmp"))).unwrap();
        prover.next().await.unwrap();
        prover.doubt();
        let next = timeout(LONG_PAUSE / 2, prover.next()).await.expect("not only after the pause of an idle worker");
        next.unwrap();
    }

    #[tokio::test]
    async fn an_older_proof_does_not_count_after_a_doubt() {
        let (mut prover, proofs) = Prover::by_hand();
        prover.doubt();
        let proof = |queue: &str| Ok(Proof { address: String::new(), queue: Some(queue.to_owned()) });
        tokio::spawn(async move {
            for (doubts, queue) in [(0, "old"), (1, "new")] {
                proofs.send((doubts, proof(queue))).await.unwrap();
            }
        });
        assert_eq!(prover.next().await.unwrap().queue.as_deref(), Some("new"));
    }
}
