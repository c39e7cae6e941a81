//! The uploads of `ArtifactService`: one object, many in a pack, and one from its parts. Each takes the memory that it may need before it
//! reads any content.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use futures::StreamExt as _;
use sortinghat_proto::{
    Digest, ObjectRef, Refusal, Tenant, limits,
    v1::{
        self, JoinObjectsRequest, UploadObjectRequest, UploadObjectsRequest, upload_object_request,
        upload_objects_request,
    },
};
use tonic::{Status, Streaming};

use super::artifacts::{Artifacts, status};
use crate::objects::{Pack, Upload};

/// How long an upload may pause before it is ended and its place is free for other calls.
const MAX_PAUSE: Duration = Duration::from_secs(60);

impl Artifacts {
    /// Stores the object that a stream announces and carries.
    pub(super) async fn receive_object(
        &self,
        tenant: &Tenant,
        mut messages: Streaming<UploadObjectRequest>,
    ) -> Result<ObjectRef, Status> {
        let announced = header(&mut messages).await?;
        self.engine.admit_work()?;
        let _held = self.memory.take(tenant, Upload::memory_bytes(announced.size_bytes)).await?;
        // The object may exist already; then the collection of objects must spare it.
        self.engine.reuse_one(tenant, &announced.digest).await?;
        let mut upload = self.objects.upload(tenant, announced).await.map_err(status)?;
        let received = self.in_time(receive_one(&mut messages, &mut upload)).await;
        let object = end(upload, received).await?;
        // Somebody may have asked for its removal meanwhile.
        self.engine.reuse_one(tenant, &object.digest).await?;
        Ok(object)
    }

    /// Stores the objects that a stream announces and carries.
    pub(super) async fn receive_pack(
        &self,
        tenant: &Tenant,
        mut messages: Streaming<UploadObjectsRequest>,
    ) -> Result<(), Status> {
        let index = index(&mut messages).await?;
        self.engine.admit_work()?;
        let _held = self.memory.take(tenant, usize::try_from(bytes_of(&index)).unwrap_or(usize::MAX)).await?;
        let digests = digests(&index);
        self.engine.reuse_all(tenant, &digests).await?;
        let mut pack = self.objects.pack(tenant, index);
        self.in_time(receive_many(&mut messages, &mut pack)).await?;
        pack.finish().await.map_err(status)?;
        // Somebody may have asked for their removal meanwhile.
        Ok(self.engine.reuse_all(tenant, &digests).await?)
    }

    /// Stores the object whose content is that of its parts.
    pub(super) async fn join(&self, tenant: &Tenant, request: JoinObjectsRequest) -> Result<(), Status> {
        let (object, parts) = object_and_parts(request)?;
        self.engine.admit_work()?;
        let _held = self.memory.take(tenant, Upload::memory_bytes(object.size_bytes)).await?;
        let mut relied_on = digests(&parts);
        relied_on.push(object.digest.clone());
        self.engine.reuse_all(tenant, &relied_on).await?;
        // An object was checked when it was stored.
        if self.objects.contains(tenant, &object).await.map_err(status)? {
            return Ok(());
        }
        let mut upload = self.objects.upload(tenant, object).await.map_err(status)?;
        let joined = self.in_time(self.copy(tenant, &parts, &mut upload)).await;
        let object = end(upload, joined).await?;
        Ok(self.engine.reuse_one(tenant, &object.digest).await?)
    }

    async fn copy(&self, tenant: &Tenant, parts: &[ObjectRef], upload: &mut Upload) -> Result<(), Status> {
        for part in parts {
            let mut pieces = self.objects.read(tenant, part.digest.clone()).await.map_err(status)?.boxed();
            while let Some(piece) = pieces.next().await {
                upload.write(piece.map_err(status)?).await.map_err(status)?;
            }
        }
        Ok(())
    }

    /// Ends an upload that takes so long that its objects might be collected before it ends.
    async fn in_time(&self, upload: impl Future<Output = Result<(), Status>>) -> Result<(), Status> {
        let ended = tokio::time::timeout(self.engine.longest_upload(), upload).await;
        ended.unwrap_or_else(|_| Err(Status::deadline_exceeded("the upload took too long")))
    }
}

/// Makes the object of an upload visible, or removes what was stored of it.
async fn end(upload: Upload, received: Result<(), Status>) -> Result<ObjectRef, Status> {
    match received {
        Ok(()) => upload.finish().await.map_err(status),
        Err(refused) => {
            upload.abort().await;
            Err(refused)
        }
    }
}

/// The next message, or `None` at the end of the upload.
async fn next<T>(messages: &mut Streaming<T>) -> Result<Option<T>, Status> {
    tokio::time::timeout(MAX_PAUSE, messages.message())
        .await
        .map_err(|_| Status::deadline_exceeded("the upload paused for more than a minute: start it again"))?
}

/// The header, which announces the object and is the first message.
async fn header(messages: &mut Streaming<UploadObjectRequest>) -> Result<ObjectRef, Status> {
    use upload_object_request::Part;
    match next(messages).await? {
        Some(UploadObjectRequest { part: Some(Part::Header(header)) }) => Ok(header.try_into()?),
        Some(UploadObjectRequest { part: None }) => Err(empty("the header").into()),
        _ => Err(Refusal::invalid("header", "an upload begins with its header").into()),
    }
}

/// The index, which announces the objects and is the first message.
async fn index(messages: &mut Streaming<UploadObjectsRequest>) -> Result<Vec<ObjectRef>, Status> {
    use upload_objects_request::Part;
    let index = match next(messages).await? {
        Some(UploadObjectsRequest { part: Some(Part::Index(index)) }) => index.objects,
        Some(UploadObjectsRequest { part: None }) => return Err(empty("the index").into()),
        _ => return Err(Refusal::invalid("index", "an upload of many objects begins with their index").into()),
    };
    let index = references("index.objects", index, limits::MAX_PACKED_OBJECTS)?;
    let (bytes, most) = (bytes_of(&index), limits::MAX_PACK_BYTES);
    if bytes > most {
        let message =
            format!("the objects of one call have at most {most} bytes in all, not {bytes}: send several calls");
        return Err(Refusal::invalid("index.objects", message).into());
    }
    Ok(index)
}

/// What to store, and the parts that are as long as it is.
fn object_and_parts(request: JoinObjectsRequest) -> Result<(ObjectRef, Vec<ObjectRef>), Refusal> {
    let object: ObjectRef =
        request.object.ok_or_else(|| Refusal::invalid("object", "name the object that the parts make"))?.try_into()?;
    let parts = references("parts", request.parts, limits::MAX_PARTS)?;
    let mut named: HashMap<&Digest, usize> = HashMap::new();
    for part in &parts {
        let times = named.entry(&part.digest).or_default();
        *times += 1;
        if *times > limits::MAX_EQUAL_PARTS {
            let message = format!(
                "object {} is named more than {} times: upload the whole object instead",
                part.digest,
                limits::MAX_EQUAL_PARTS
            );
            return Err(Refusal::invalid("parts", message));
        }
    }
    let bytes = bytes_of(&parts);
    match bytes == object.size_bytes {
        true => Ok((object, parts)),
        false => {
            let message = format!("the parts have {bytes} bytes, but {} were announced", object.size_bytes);
            Err(Refusal::invalid("parts", message))
        }
    }
}

/// References that are well-formed and neither none nor too many.
fn references(field: &str, references: Vec<v1::ObjectRef>, most: usize) -> Result<Vec<ObjectRef>, Refusal> {
    if references.is_empty() || references.len() > most {
        let message = format!("name 1 to {most} objects, not {}", references.len());
        return Err(Refusal::invalid(field, message));
    }
    let parsed = references.into_iter().enumerate().map(|(place, reference)| {
        ObjectRef::try_from(reference).map_err(|refusal| refusal.at(format!("{field}[{place}]")))
    });
    parsed.collect()
}

fn bytes_of(objects: &[ObjectRef]) -> u64 {
    objects.iter().fold(0, |sum, object| sum.saturating_add(object.size_bytes))
}

fn digests(objects: &[ObjectRef]) -> Vec<Digest> {
    objects.iter().map(|object| object.digest.clone()).collect()
}

/// The content in a message, if it has an allowed size.
fn piece(data: Bytes) -> Result<Bytes, Refusal> {
    if (1..=limits::MAX_PIECE_BYTES).contains(&data.len()) {
        return Ok(data);
    }
    let message = format!("a piece has 1 to {} bytes, not {}", limits::MAX_PIECE_BYTES, data.len());
    Err(Refusal::invalid("data", message))
}

/// The refusal of a message that has neither what comes first nor data.
fn empty(first: &str) -> Refusal {
    Refusal::invalid("part", format!("each message of an upload holds {first} or data"))
}

/// Writes every piece to the upload.
async fn receive_one(messages: &mut Streaming<UploadObjectRequest>, upload: &mut Upload) -> Result<(), Status> {
    use upload_object_request::Part;
    while let Some(UploadObjectRequest { part }) = next(messages).await? {
        match part {
            Some(Part::Data(data)) => upload.write(piece(data)?).await.map_err(status)?,
            Some(Part::Header(_)) => {
                return Err(Refusal::invalid("header", "an upload has one header, the first message").into());
            }
            None => return Err(empty("the header").into()),
        }
    }
    Ok(())
}

/// Writes every piece to the pack.
async fn receive_many(messages: &mut Streaming<UploadObjectsRequest>, pack: &mut Pack) -> Result<(), Status> {
    use upload_objects_request::Part;
    while let Some(UploadObjectsRequest { part }) = next(messages).await? {
        match part {
            Some(Part::Data(data)) => pack.write(piece(data)?).await.map_err(status)?,
            Some(Part::Index(_)) => {
                return Err(Refusal::invalid("index", "an upload has one index, the first message").into());
            }
            None => return Err(empty("the index").into()),
        }
    }
    Ok(())
}
