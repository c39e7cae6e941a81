//! `ArtifactService`.

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use sortinghat_proto::{
    Digest, ObjectRef, Refusal, limits,
    v1::{
        DeleteDatasetRequest, DeleteDatasetResponse, DeleteModelRequest, DeleteModelResponse, DeleteObjectsRequest,
        DeleteObjectsResponse, FindMissingObjectsRequest, FindMissingObjectsResponse, GetDatasetRequest,
        GetDatasetResponse, GetModelRequest, GetModelResponse, ListDatasetsRequest, ListDatasetsResponse,
        ListModelsRequest, ListModelsResponse, ReadObjectRequest, ReadObjectResponse, UploadObjectRequest,
        UploadObjectResponse, artifact_service_server::ArtifactService, upload_object_request::Part,
    },
};
use tonic::{Request, Response, Status, Streaming};

use super::{admission::UploadMemory, tenant};
use crate::{
    engine::Engine,
    objects::{ObjectError, Objects, Upload},
};

/// How long an upload may pause before it is ended and its place is free for other calls.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// The service.
#[derive(Clone)]
pub(super) struct Artifacts {
    pub(super) engine: Engine,
    pub(super) objects: Objects,
    pub(super) memory: UploadMemory,
}

/// The status that reports an error of the object store.
fn status(error: ObjectError) -> Status {
    Refusal::from(error).into()
}

/// The next part of an upload, or `None` at the end of the upload.
async fn next_part(parts: &mut Streaming<UploadObjectRequest>) -> Result<Option<Part>, Status> {
    let message = tokio::time::timeout(MAX_PAUSE, parts.message())
        .await
        .map_err(|_| Status::deadline_exceeded("the upload paused for more than a minute: start it again"))??;
    match message {
        None => Ok(None),
        Some(UploadObjectRequest { part: Some(part) }) => Ok(Some(part)),
        Some(UploadObjectRequest { part: None }) => {
            Err(Refusal::invalid("part", "each message of an upload holds the header or data").into())
        }
    }
}

/// The header, which announces the object and is the first message.
async fn header(parts: &mut Streaming<UploadObjectRequest>) -> Result<ObjectRef, Status> {
    match next_part(parts).await? {
        Some(Part::Header(header)) => Ok(header.try_into()?),
        Some(Part::Data(_)) | None => Err(Refusal::invalid("header", "an upload begins with its header").into()),
    }
}

/// The bytes of a part, if it holds data of an allowed size.
fn piece(part: Part) -> Result<Bytes, Refusal> {
    match part {
        Part::Data(data) if data.len() <= limits::MAX_PIECE_BYTES => Ok(data),
        Part::Data(data) => {
            let message = format!("a piece has at most {} bytes, not {}", limits::MAX_PIECE_BYTES, data.len());
            Err(Refusal::invalid("data", message))
        }
        Part::Header(_) => Err(Refusal::invalid("header", "an upload has one header, the first message")),
    }
}

/// The digests of a request, if they are not too many.
fn parse_digests(digests: &[String]) -> Result<Vec<Digest>, Refusal> {
    let max = limits::MAX_DIGESTS_PER_CALL;
    if digests.len() > max {
        let message = format!("at most {max} digests in one call, not {}: send several calls", digests.len());
        return Err(Refusal::invalid("digests", message));
    }
    digests.iter().map(|digest| digest.parse()).collect()
}

/// Writes every piece to the upload.
async fn receive(parts: &mut Streaming<UploadObjectRequest>, upload: &mut Upload) -> Result<(), Status> {
    while let Some(part) = next_part(parts).await? {
        upload.write(piece(part)?).await.map_err(status)?;
    }
    Ok(())
}

#[tonic::async_trait]
impl ArtifactService for Artifacts {
    type ReadObjectStream = BoxStream<'static, Result<ReadObjectResponse, Status>>;

    async fn find_missing_objects(
        &self,
        request: Request<FindMissingObjectsRequest>,
    ) -> Result<Response<FindMissingObjectsResponse>, Status> {
        let tenant = tenant(&request);
        let digests = parse_digests(&request.get_ref().digests)?;
        // A caller that is told that an object exists relies on it from now on, so the collection of objects must spare it.
        let leaving = self.engine.reuse(&tenant, &digests).await?;
        let gone = self.objects.missing(&tenant, digests.clone()).await.map_err(status)?;
        let gone: HashSet<Digest> = gone.into_iter().chain(leaving).collect();
        let missing = digests.into_iter().filter(|digest| gone.contains(digest));
        Ok(Response::new(FindMissingObjectsResponse { missing: missing.map(String::from).collect() }))
    }

    async fn upload_object(
        &self,
        request: Request<Streaming<UploadObjectRequest>>,
    ) -> Result<Response<UploadObjectResponse>, Status> {
        let tenant = tenant(&request);
        let mut parts = request.into_inner();
        let announced = header(&mut parts).await?;
        self.engine.admit_work()?;
        let _held = self.memory.take(&tenant, Upload::memory_bytes(announced.size_bytes)).await?;
        // The object may exist already; then the collection of objects must spare it.
        self.engine.reuse_one(&tenant, &announced.digest).await?;
        let mut upload = self.objects.upload(&tenant, announced).await.map_err(status)?;
        let received = tokio::time::timeout(self.engine.longest_upload(), receive(&mut parts, &mut upload)).await;
        let received =
            received.unwrap_or_else(|_| Err(Status::deadline_exceeded("the upload of one object took too long")));
        if let Err(refused) = received {
            upload.abort().await;
            return Err(refused);
        }
        let object = upload.finish().await.map_err(status)?;
        Ok(Response::new(UploadObjectResponse { object: Some(object.into()) }))
    }

    async fn read_object(
        &self,
        request: Request<ReadObjectRequest>,
    ) -> Result<Response<Self::ReadObjectStream>, Status> {
        let tenant = tenant(&request);
        let digest = request.get_ref().digest.parse::<Digest>()?;
        let pieces = self.objects.read(&tenant, digest).await.map_err(status)?;
        Ok(Response::new(pieces.map(|piece| piece.map(|data| ReadObjectResponse { data }).map_err(status)).boxed()))
    }

    async fn list_datasets(
        &self,
        request: Request<ListDatasetsRequest>,
    ) -> Result<Response<ListDatasetsResponse>, Status> {
        let tenant = tenant(&request);
        Ok(Response::new(self.engine.list_datasets(&tenant, request.into_inner()).await?))
    }

    async fn get_dataset(&self, request: Request<GetDatasetRequest>) -> Result<Response<GetDatasetResponse>, Status> {
        let dataset = self.engine.get_dataset(&tenant(&request), &request.get_ref().name).await?;
        Ok(Response::new(GetDatasetResponse { dataset: Some(dataset) }))
    }

    async fn delete_dataset(
        &self,
        request: Request<DeleteDatasetRequest>,
    ) -> Result<Response<DeleteDatasetResponse>, Status> {
        self.engine.delete_dataset(&tenant(&request), &request.get_ref().name).await?;
        Ok(Response::new(DeleteDatasetResponse {}))
    }

    async fn list_models(&self, request: Request<ListModelsRequest>) -> Result<Response<ListModelsResponse>, Status> {
        let tenant = tenant(&request);
        Ok(Response::new(self.engine.list_models(&tenant, request.into_inner()).await?))
    }

    async fn get_model(&self, request: Request<GetModelRequest>) -> Result<Response<GetModelResponse>, Status> {
        let model = self.engine.get_model(&tenant(&request), &request.get_ref().name).await?;
        Ok(Response::new(GetModelResponse { model: Some(model) }))
    }

    async fn delete_model(
        &self,
        request: Request<DeleteModelRequest>,
    ) -> Result<Response<DeleteModelResponse>, Status> {
        self.engine.delete_model(&tenant(&request), &request.get_ref().name).await?;
        Ok(Response::new(DeleteModelResponse {}))
    }

    async fn delete_objects(
        &self,
        request: Request<DeleteObjectsRequest>,
    ) -> Result<Response<DeleteObjectsResponse>, Status> {
        let digests = parse_digests(&request.get_ref().digests)?;
        let objects_gone_within_ms = self.engine.erase(&tenant(&request), &digests).await?;
        Ok(Response::new(DeleteObjectsResponse { objects_gone_within_ms }))
    }
}
