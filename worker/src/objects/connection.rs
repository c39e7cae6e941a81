//! The executor's end of the channel to the worker. Any number of threads ask at the same time, and each gets its own answer.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
};

use nix::sys::socket::{Shutdown, shutdown};
use parking_lot::{Condvar, Mutex, MutexGuard};
use sortinghat_proto::executor::v1::{ObjectAnswer, ObjectRequest, object_answer::Answer, object_request::Request};

use super::{
    ObjectError, channel,
    patience::{LOOK_INTERVAL, Wait, Waiting},
};

/// An answer and the descriptor that came with it.
pub(super) type Answered = (Answer, Option<OwnedFd>);

/// The requests that are under way, each with who waits for its answer.
#[derive(Debug, Default)]
struct Pending {
    waiting: HashMap<u64, SyncSender<Answered>>,
    last_id: u64,
    /// The worker has closed its end.
    is_closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    /// Told when a request has ended.
    ended: Condvar,
}

/// The channel, as those who ask hold it.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    shared: Arc<Shared>,
}

impl Connection {
    /// Starts the thread that takes answers.
    pub(super) fn over(socket: OwnedFd) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let (answers, waiting) = (socket.try_clone()?, shared.clone());
        thread::Builder::new().name("objects".into()).spawn(move || take_answers(&answers, &waiting))?;
        Ok(Self { socket, shared })
    }

    /// Asks, and waits for the answer. `what` is what is asked, as in "read object sha256:...".
    pub(super) fn ask(
        self: &Arc<Self>,
        what: &str,
        request: Request,
        file: Option<BorrowedFd<'_>>,
        waiting: &Waiting,
    ) -> Result<Answered, ObjectError> {
        let mut pending = self.shared.pending.lock();
        while !pending.is_closed && pending.waiting.len() >= channel::MAX_REQUESTS {
            self.shared.ended.wait_for(&mut pending, LOOK_INTERVAL);
            waiting.look(Wait::Answer)?;
        }
        match self.send(pending, request, file) {
            Some(asked) => asked.wait(what, waiting),
            None => Err(gone(what)),
        }
    }

    /// Asks without waiting for a place or an answer; `None` if there is no place at once, or nobody to ask.
    pub(super) fn begin(self: &Arc<Self>, request: Request) -> Option<Asked> {
        let pending = self.shared.pending.lock();
        if pending.waiting.len() >= channel::MAX_REQUESTS { None } else { self.send(pending, request, None) }
    }

    /// Takes a place and sends a request; `None` if there is nobody to ask any more.
    fn send(
        self: &Arc<Self>,
        mut pending: MutexGuard<'_, Pending>,
        request: Request,
        file: Option<BorrowedFd<'_>>,
    ) -> Option<Asked> {
        if pending.is_closed {
            return None;
        }
        let (sender, answer) = sync_channel(1);
        pending.last_id += 1;
        let id = pending.last_id;
        pending.waiting.insert(id, sender);
        drop(pending);
        let sent = channel::send(&self.socket, &ObjectRequest { id, request: Some(request) }, file);
        if let Err(error) = sent {
            tracing::error!(%error, "a request could not be sent to the worker");
            self.shared.leave(id);
            return None;
        }
        Some(Asked { connection: self.clone(), id, answer, is_answered: false })
    }

    /// Tells the worker that nobody waits for an answer any more. The place is free once the worker has answered all the same.
    fn withdraw(&self, id: u64) {
        // If the worker is gone, it need not be told.
        let _ = channel::send(&self.socket, &ObjectRequest { id: 0, request: Some(Request::Withdraw(id)) }, None);
    }
}

/// A request that is under way; it is withdrawn when this is dropped.
#[derive(Debug)]
pub(super) struct Asked {
    connection: Arc<Connection>,
    id: u64,
    answer: Receiver<Answered>,
    is_answered: bool,
}

impl Asked {
    /// Waits for the answer.
    pub(super) fn wait(mut self, what: &str, waiting: &Waiting) -> Result<Answered, ObjectError> {
        loop {
            match self.answer.recv_timeout(LOOK_INTERVAL) {
                Ok(answered) => {
                    self.is_answered = true;
                    return Ok(answered);
                }
                Err(RecvTimeoutError::Disconnected) => return Err(gone(what)),
                Err(RecvTimeoutError::Timeout) => waiting.look(Wait::Answer)?,
            }
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.is_answered {
            self.connection.withdraw(self.id);
        }
    }
}

fn gone(what: &str) -> ObjectError {
    ObjectError::Refused { action: what.to_owned(), reason: "it has closed the connection".to_owned() }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // This ends the thread that takes answers. It fails if the worker has closed its end already.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
    }
}

impl Shared {
    fn leave(&self, id: u64) -> Option<SyncSender<Answered>> {
        let sender = self.pending.lock().waiting.remove(&id);
        self.ended.notify_one();
        sender
    }
}

/// Hands each answer to who waits for it, until the worker closes its end.
fn take_answers(socket: &OwnedFd, shared: &Shared) {
    while let Ok(Some((ObjectAnswer { id, answer: Some(answer) }, file))) = channel::receive(socket.as_fd()) {
        if let Some(sender) = shared.leave(id) {
            // Who has withdrawn waits no more.
            let _ = sender.send((answer, file));
        }
    }
    let mut pending = shared.pending.lock();
    pending.is_closed = true;
    // Whoever waits learns it from the end of its channel.
    pending.waiting.clear();
    shared.ended.notify_all();
}
