//! Objects as a job sees them: immutable, of one tenant, named by SHA-256.
//!
//! An executor holds no key of the store and opens no connection. It asks its worker over a channel, whose other end is
//! [`broker`](crate::broker), and content comes as an open file. Every byte that is read here has been checked against its digest: the
//! worker checks what it keeps in its cache, and the reader what is read once. A write is durable when it returns, and it may be repeated.
//!
//! The calls block, for jobs and their threads; never call them from asynchronous code. If the store does not answer, they wait for it, so
//! that a task keeps what it has done.

mod ahead;
pub(crate) mod channel;
mod connection;
mod error;
mod patience;
pub(crate) mod sealed;
mod web;

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use bytes::Bytes;
use sortinghat_proto::{
    Backbone, Digest, ObjectRef,
    executor::v1::{PutObject, object_answer::Answer, object_failure::Kind, object_request::Request},
    limits,
    manifest::{self, Document},
};

pub use ahead::ReadAhead;
use connection::{Answered, Connection};
pub use error::{ObjectError, Stopped};
pub(crate) use patience::{Wait, Waiting};
pub(crate) use web::Photo;

/// One tenant's objects. Cheap to clone, shared freely between threads.
#[derive(Debug, Clone)]
pub struct TenantObjects {
    connection: Arc<Connection>,
    waiting: Waiting,
}

/// Pretrained weights, by where they come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishedWeights<'a> {
    /// Those of a backbone: installed where the worker runs, or else published.
    Backbone(Backbone),
    /// Those in a repository `owner/name` of the hub, which the task's spec must name.
    Hub(&'a str),
}

impl TenantObjects {
    /// The objects that the worker at the other end of this socket serves.
    ///
    /// # Errors
    /// [`io::Error`] if the system gives no thread.
    pub fn over(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { connection: Arc::new(Connection::over(socket)?), waiting: Waiting::default() })
    }

    /// The same objects, for calls that fail at once if the store does not answer.
    pub(crate) fn without_waiting(&self) -> Self {
        self.for_task(Waiting::default())
    }

    /// The same objects for a task, which is asked by `waiting` whether to go on waiting while the store does not answer.
    pub(crate) fn for_task(&self, waiting: Waiting) -> Self {
        Self { connection: self.connection.clone(), waiting }
    }

    /// The object's content. Not cached: for photos and documents, which are read once.
    ///
    /// # Errors
    /// [`ObjectError::Missing`], [`ObjectError::Corrupt`], or [`ObjectError::Unavailable`].
    pub fn read(&self, object: &ObjectRef) -> Result<Bytes, ObjectError> {
        let action = reading(object);
        self.persist(|| {
            let request = Request::Read(object.clone().into());
            content_of(object, self.connection.ask(&action, request, None, &self.waiting))
        })
    }

    /// The object as an open file of the worker's cache, fetched if it is not there: for shards and weights. It stays readable for as
    /// long as it is open.
    ///
    /// # Errors
    /// As [`Self::read`], or [`ObjectError::Machine`] (a full disk).
    pub fn open(&self, object: &ObjectRef) -> Result<File, ObjectError> {
        let action = reading(object);
        let content = self.persist(|| self.content(&action, &object.digest, Request::Open(object.clone().into())));
        content.map(|(_, file)| file)
    }

    /// The document stored in this object.
    ///
    /// # Errors
    /// As [`Self::read`], or [`ObjectError::Document`], or [`ObjectError::TooLarge`].
    pub fn document<T: Document>(&self, object: &ObjectRef) -> Result<T, ObjectError> {
        if object.size_bytes > limits::MAX_MANIFEST_BYTES {
            return Err(ObjectError::TooLarge {
                digest: object.digest.clone(),
                size_bytes: object.size_bytes,
                limit_bytes: limits::MAX_MANIFEST_BYTES,
            });
        }
        let bytes = self.read(object)?;
        manifest::decode(&bytes).map_err(|source| ObjectError::Document { digest: object.digest.clone(), source })
    }

    /// The reference to an object of which only the digest is known.
    ///
    /// # Errors
    /// [`ObjectError::Missing`] or [`ObjectError::Unavailable`].
    pub fn find(&self, digest: &Digest) -> Result<ObjectRef, ObjectError> {
        let action = format!("find object {digest}");
        let request = || Request::Find(digest.to_string());
        self.persist(|| named(&action, Some(digest), self.connection.ask(&action, request(), None, &self.waiting)?))
    }

    /// Stores `content`; durable when it returns. The same content again is the same object.
    ///
    /// # Errors
    /// [`ObjectError::Unavailable`].
    pub fn put(&self, content: impl Into<Bytes>) -> Result<ObjectRef, ObjectError> {
        let content: Bytes = content.into();
        let action = format!("store an object of {} bytes", content.len());
        let file = sealed::sealed(&content).map_err(ObjectError::machine(&*action))?;
        let request = || Request::Put(PutObject {});
        self.persist(|| {
            let answered = self.connection.ask(&action, request(), Some(file.as_fd()), &self.waiting)?;
            named(&action, None, answered)
        })
    }

    /// Stores a document.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn put_document<T: Document>(&self, document: &T) -> Result<ObjectRef, ObjectError> {
        self.put(manifest::encode(document))
    }

    /// Pretrained weights as an open file, whose content nobody has checked, and where they were found.
    ///
    /// # Errors
    /// [`ObjectError::NoWeights`] with the reason.
    pub fn weights(&self, weights: PublishedWeights<'_>) -> Result<(String, File), ObjectError> {
        let (what, request) = match weights {
            PublishedWeights::Backbone(backbone) => (backbone.as_str(), Request::Backbone(backbone.to_string())),
            PublishedWeights::Hub(repository) => (repository, Request::HubRepository(repository.to_owned())),
        };
        match self.connection.ask("fetch weights", request, None, &self.waiting)? {
            (Answer::Failure(failure), _) if failure.kind() == Kind::NoWeights => {
                Err(ObjectError::NoWeights { what: what.to_owned(), reason: failure.reason })
            }
            answered => file_of("fetch weights", None, answered),
        }
    }

    /// The file that answers this request.
    fn content(&self, action: &str, digest: &Digest, request: Request) -> Result<(String, File), ObjectError> {
        file_of(action, Some(digest), self.connection.ask(action, request, None, &self.waiting)?)
    }
}

/// What reading an object is called in messages.
fn reading(object: &ObjectRef) -> String {
    format!("read object {}", object.digest)
}

/// The content of an object that a worker has answered with, checked against its digest.
fn content_of(object: &ObjectRef, answered: Result<Answered, ObjectError>) -> Result<Bytes, ObjectError> {
    let action = reading(object);
    let (_, file) = file_of(&action, Some(&object.digest), answered?)?;
    let bytes = whole(file, object.size_bytes).map_err(ObjectError::machine(action))?;
    let found = Digest::of(&bytes);
    if found != object.digest || bytes.len() as u64 != object.size_bytes {
        let reason = format!("the store's copy has {} bytes and digest {found}", bytes.len());
        return Err(ObjectError::Corrupt { digest: object.digest.clone(), reason });
    }
    Ok(bytes)
}

/// All bytes of a file that should have so many; one more if it has more.
fn whole(file: File, bytes: u64) -> io::Result<Bytes> {
    let length = file.metadata()?.len().min(bytes);
    let mut content = Vec::with_capacity(usize::try_from(length).unwrap_or_default().saturating_add(1));
    file.take(bytes.saturating_add(1)).read_to_end(&mut content)?;
    Ok(content.into())
}

fn file_of(action: &str, digest: Option<&Digest>, answered: Answered) -> Result<(String, File), ObjectError> {
    match answered {
        (Answer::Content(content), Some(file)) => Ok((content.origin, file.into())),
        (answer, _) => Err(failed(action, digest, answer)),
    }
}

fn named(action: &str, digest: Option<&Digest>, answered: Answered) -> Result<ObjectRef, ObjectError> {
    match answered.0 {
        Answer::Object(object) => ObjectRef::try_from(object)
            .map_err(|refusal| ObjectError::Refused { action: action.to_owned(), reason: refusal.to_string() }),
        answer => Err(failed(action, digest, answer)),
    }
}

/// The error that this answer means.
fn failed(action: &str, digest: Option<&Digest>, answer: Answer) -> ObjectError {
    let action = action.to_owned();
    let Answer::Failure(failure) = answer else {
        return ObjectError::Refused { action, reason: "its answer is to another question".to_owned() };
    };
    let (kind, reason) = (failure.kind(), failure.reason);
    match (kind, digest.cloned()) {
        (Kind::Missing, Some(digest)) => ObjectError::Missing { digest },
        (Kind::Corrupt, Some(digest)) => ObjectError::Corrupt { digest, reason },
        (Kind::Unavailable, _) => ObjectError::Unavailable { action, reason, is_transient: true },
        (Kind::Unusable, _) => ObjectError::Unavailable { action, reason, is_transient: false },
        (Kind::Machine, _) => ObjectError::Machine { action, reason },
        (Kind::NotAllowed, _) => ObjectError::NotAllowed { reason },
        (Kind::ProviderUnusable, _) => ObjectError::Provider { reason, is_transient: false },
        (Kind::ProviderUnavailable, _) => ObjectError::Provider { reason, is_transient: true },
        _ => ObjectError::Refused { action, reason },
    }
}
