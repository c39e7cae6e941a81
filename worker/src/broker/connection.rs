//! One executor's connection: what it asks is checked, bounded and answered, many requests at a time.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    sync::Arc,
};

use nix::sys::socket::{Shutdown, shutdown};
use parking_lot::Mutex;
use sortinghat_proto::{
    Backbone, Digest, ObjectRef, Refusal,
    executor::v1::{
        FetchedPhoto, NotFetched, Noted, ObjectAnswer, ObjectContent, ObjectRequest, object_answer::Answer,
        object_request::Request,
    },
    limits::MAX_OBJECT_BYTES,
};
use tokio::{
    io::Interest,
    net::UnixStream,
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::AbortHandle,
};
use tokio_util::sync::CancellationToken;

use super::{Grant, MAX_BYTES_IN_FLIGHT, Shared, failure::Failure, store::blocking};
use crate::objects::{channel, sealed};

/// Requests of one executor that may be under way here: it may have read an answer before that is counted as sent.
const MAX_REQUESTS: usize = 2 * channel::MAX_REQUESTS;

/// An executor's connection, as its supervisor holds it. It is closed when this is dropped.
#[derive(Debug)]
pub struct Connection {
    grant: Arc<Mutex<Option<Grant>>>,
    /// Why the connection was closed, if the executor has broken its rules.
    broken: watch::Receiver<Option<String>>,
    reader: AbortHandle,
}

/// What the requests of one connection share.
struct Channel {
    socket: UnixStream,
    grant: Arc<Mutex<Option<Grant>>>,
    shared: Arc<Shared>,
    /// The requests that are under way, each with what withdraws it.
    under_way: Mutex<HashMap<u64, CancellationToken>>,
}

/// Closes the socket for both ends when it is dropped, so that answers that nobody reads are waited for no longer.
struct Closes<'a>(&'a UnixStream);

impl Drop for Closes<'_> {
    fn drop(&mut self) {
        // An executor that is gone has closed it already.
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Both);
    }
}

/// What a request is answered with, and the file that goes with it.
type Served = Result<(Answer, Option<File>), Failure>;

impl Connection {
    pub(super) fn open(shared: Arc<Shared>, runtime: &Handle) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = channel::pair()?;
        // The type is that of another kind of local socket; nothing is used of it but that it waits.
        let ours = StdUnixStream::from(ours);
        ours.set_nonblocking(true)?;
        let grant = Arc::<Mutex<Option<Grant>>>::default();
        let (tell, broken) = watch::channel(None);
        let _inside = runtime.enter();
        let socket = UnixStream::from_std(ours)?;
        let channel = Channel { socket, grant: grant.clone(), shared, under_way: Mutex::default() };
        let reader = runtime.spawn(async move {
            if let Err(reason) = Arc::new(channel).serve().await {
                // If the supervisor has let go of the connection, it needs no reason.
                let _ = tell.send(Some(reason));
            }
        });
        Ok((Self { grant, broken, reader: reader.abort_handle() }, theirs))
    }

    /// Serves what is granted from now on, to requests that come from now on; nothing if that is `None`.
    pub fn grant(&self, grant: Option<Grant>) {
        *self.grant.lock() = grant;
    }

    /// Waits until the executor breaks the rules of the connection, which closes it; returns how. The future may be dropped, and the call
    /// repeated.
    pub async fn broken(&mut self) -> String {
        let reason = self.broken.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            // The executor has closed its end, or the broker is gone.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Channel {
    /// Takes requests until the executor closes its end. The error is how it has broken the rules.
    async fn serve(self: Arc<Self>) -> Result<(), String> {
        let _closes = Closes(&self.socket);
        loop {
            let next = self.socket.async_io(Interest::READABLE, || channel::receive::<ObjectRequest>(&self.socket));
            let (request, file) = match next.await {
                Ok(Some(next)) => next,
                Ok(None) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(format!("it sent an unreadable request: {error}"));
                }
                Err(_) => return Ok(()),
            };
            let ObjectRequest { id, request: Some(request) } = request else {
                return Err("it sent an unknown request".to_owned());
            };
            if let Request::Withdraw(id) = request {
                if let Some(request) = self.under_way.lock().get(&id) {
                    request.cancel();
                }
                continue;
            }
            let withdrawn = CancellationToken::new();
            {
                let mut under_way = self.under_way.lock();
                if under_way.len() >= MAX_REQUESTS {
                    return Err(format!("it has more than {MAX_REQUESTS} requests under way"));
                }
                if under_way.insert(id, withdrawn.clone()).is_some() {
                    return Err("it has two requests of one number under way".to_owned());
                }
            }
            tokio::spawn(self.clone().answer(id, request, file, withdrawn));
        }
    }

    async fn answer(self: Arc<Self>, id: u64, request: Request, file: Option<OwnedFd>, withdrawn: CancellationToken) {
        let served = tokio::select! {
            served = self.work(request, file) => served,
            () = withdrawn.cancelled() => Err(Failure::Refused("it was withdrawn".to_owned())),
        };
        let (answer, file) = served.unwrap_or_else(|failure| (Answer::Failure(failure.into_message()), None));
        let message = ObjectAnswer { id, answer: Some(answer) };
        let file = file.as_ref().map(File::as_fd);
        let sent = self.socket.async_io(Interest::WRITABLE, || channel::send(&self.socket, &message, file)).await;
        if let Err(error) = sent {
            // An executor that is gone needs no answer.
            tracing::debug!(%error, "an executor was not answered");
        }
        self.under_way.lock().remove(&id);
    }

    async fn work(&self, request: Request, file: Option<OwnedFd>) -> Served {
        let Some(grant) = self.grant.lock().clone() else {
            return Err(Failure::Refused("no task is running".to_owned()));
        };
        let (store, tenant) = (self.shared.store.clone(), grant.tenant.clone());
        let named = |object: ObjectRef| (Answer::Object(object.into()), None);
        let content = |file| (Answer::Content(ObjectContent::default()), Some(file));
        match request {
            Request::Read(object) => {
                let object = object_of(object)?;
                let _room = match store.is_folder() {
                    true => None,
                    false => Some(self.room(object.size_bytes).await?),
                };
                store.read(tenant, object).await.map(content)
            }
            Request::Open(object) => store.cached(tenant, object_of(object)?).await.map(content),
            Request::Find(digest) => {
                let digest: Digest = digest.parse().map_err(refused)?;
                store.find(tenant, digest).await.map(named)
            }
            Request::Put(_) => {
                let (file, bytes) = sealed_file(file)?;
                let _room = self.room(bytes).await?;
                store.put(tenant, file, bytes).await.map(named)
            }
            Request::Backbone(name) => {
                let backbone = Backbone::ALL.into_iter().find(|backbone| backbone.as_str() == name);
                let backbone = backbone.ok_or_else(|| Failure::Refused("an unknown backbone".to_owned()))?;
                let shared = self.shared.clone();
                blocking(move || shared.weights.of_backbone(backbone)).await.map(found)
            }
            Request::HubRepository(name) if grant.hub_repository.as_ref() == Some(&name) => {
                let shared = self.shared.clone();
                blocking(move || shared.weights.of_repository(&name)).await.map(found)
            }
            Request::HubRepository(_) => Err(Failure::Refused("the task names another repository or none".into())),
            Request::Search(asked) => {
                let page = self.shared.web.search(&tenant, grant.web.as_ref(), asked).await?;
                blocking(move || Ok(sealed::sealed(&page)?.into())).await.map(content)
            }
            Request::Fetch(asked) => match self.shared.web.photo(&tenant, grant.web.as_ref(), &asked).await? {
                Ok((photo, ending)) => {
                    let object = Some(store.put_bytes(tenant, photo.bytes.clone()).await?.into());
                    Ok((Answer::Photo(FetchedPhoto { object, ending: ending.to_owned() }), None))
                }
                Err(error) => Ok((Answer::NotFetched(NotFetched { reason: error.to_string() }), None)),
            },
            Request::EndFetching(_) => {
                if let Some(grant) = &mut *self.grant.lock() {
                    grant.web = None;
                }
                Ok((Answer::Noted(Noted {}), None))
            }
            Request::Withdraw(_) => Err(Failure::Refused("it is no request of its own".into())),
        }
    }

    /// Waits for room in memory for so many bytes.
    async fn room(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Failure> {
        let wanted = bytes.min(MAX_BYTES_IN_FLIGHT).div_ceil(1 << 10);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        let room = Semaphore::acquire_many_owned(self.shared.room.clone(), wanted).await;
        room.map_err(|_| Failure::Refused("the worker ends".to_owned()))
    }
}

fn found((origin, file): (String, File)) -> (Answer, Option<File>) {
    (Answer::Content(ObjectContent { origin }), Some(file))
}

fn refused(refusal: Refusal) -> Failure {
    Failure::Refused(refusal.to_string())
}

fn object_of(object: sortinghat_proto::v1::ObjectRef) -> Result<ObjectRef, Failure> {
    let object = ObjectRef::try_from(object).map_err(refused)?;
    within_bounds(object.size_bytes)?;
    Ok(object)
}

fn within_bounds(bytes: u64) -> Result<(), Failure> {
    match bytes <= MAX_OBJECT_BYTES {
        true => Ok(()),
        false => Err(Failure::Refused(format!("an object of {bytes} bytes; at most {MAX_OBJECT_BYTES} are allowed"))),
    }
}

/// The file that came with a request, and its length, if nobody can change either any more.
fn sealed_file(file: Option<OwnedFd>) -> Result<(File, u64), Failure> {
    let file = file.filter(|file| sealed::is_sealed(file)).map(File::from);
    let file = file.ok_or_else(|| Failure::Refused("what is to be stored comes in a sealed memory file".to_owned()))?;
    let bytes = file.metadata()?.len();
    within_bounds(bytes)?;
    Ok((file, bytes))
}
