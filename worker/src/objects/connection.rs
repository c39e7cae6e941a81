//! The executor's end of the channel to the worker. Any number of threads ask at the same time, and each gets its own answer.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
};

use nix::sys::socket::{Shutdown, shutdown};
use parking_lot::{Condvar, Mutex};
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
        &self,
        what: &str,
        request: Request,
        file: Option<BorrowedFd<'_>>,
        waiting: &Waiting,
    ) -> Result<Answered, ObjectError> {
        let gone = || ObjectError::Refused { action: what.to_owned(), reason: "it has closed the connection".into() };
        let (sender, answer) = sync_channel(1);
        let id = self.enter(sender, waiting)?.ok_or_else(gone)?;
        let sent = channel::send(&self.socket, &ObjectRequest { id, request: Some(request) }, file);
        if let Err(error) = sent {
            self.shared.leave(id);
            return Err(ObjectError::Refused { action: what.to_owned(), reason: error.to_string() });
        }
        loop {
            match answer.recv_timeout(LOOK_INTERVAL) {
                Ok(answered) => return Ok(answered),
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
                Err(RecvTimeoutError::Timeout) => waiting.look(Wait::Answer).inspect_err(|_| self.withdraw(id))?,
            }
        }
    }

    /// Takes a number for a request, once there is a place for it; `None` if there is nobody to ask any more.
    fn enter(&self, sender: SyncSender<Answered>, waiting: &Waiting) -> Result<Option<u64>, ObjectError> {
        let mut pending = self.shared.pending.lock();
        while !pending.is_closed && pending.waiting.len() >= channel::MAX_REQUESTS {
            self.shared.ended.wait_for(&mut pending, LOOK_INTERVAL);
            waiting.look(Wait::Answer)?;
        }
        if pending.is_closed {
            return Ok(None);
        }
        pending.last_id += 1;
        let id = pending.last_id;
        pending.waiting.insert(id, sender);
        Ok(Some(id))
    }

    /// Tells the worker that nobody waits for an answer any more. The place is free once the worker has answered all the same.
    fn withdraw(&self, id: u64) {
        // If the worker is gone, it need not be told.
        let _ = channel::send(&self.socket, &ObjectRequest { id: 0, request: Some(Request::Withdraw(id)) }, None);
    }
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
