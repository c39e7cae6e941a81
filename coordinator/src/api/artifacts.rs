//! `ArtifactService`.

use std::collections::HashSet;

use futures::{StreamExt as _, stream::BoxStream};
use sortinghat_proto::{
    Digest, Refusal, limits,
    v1::{
        DeleteDatasetRequest, DeleteDatasetResponse, DeleteModelRequest, DeleteModelResponse, DeleteObjectsRequest,
        DeleteObjectsResponse, FindMissingObjectsRequest, FindMissingObjectsResponse, GetDatasetRequest,
        GetDatasetResponse, GetModelRequest, GetModelResponse, JoinObjectsRequest, JoinObjectsResponse,
        ListDatasetsRequest, ListDatasetsResponse, ListModelsRequest, ListModelsResponse, ReadObjectRequest,
        ReadObjectResponse, UploadObjectRequest, UploadObjectResponse, UploadObjectsRequest, UploadObjectsResponse,
        artifact_service_server::ArtifactService,
    },
};
use tonic::{Request, Response, Status, Streaming};

use super::{admission::UploadMemory, tenant};
use crate::{
    engine::Engine,
    objects::{ObjectError, Objects},
};

/// The service.
#[derive(Clone)]
pub(super) struct Artifacts {
    pub(super) engine: Engine,
    pub(super) objects: Objects,
    pub(super) memory: UploadMemory,
}

/// The status that reports an error of the object store.
pub(super) fn status(error: ObjectError) -> Status {
    Refusal::from(error).into()
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
        let object = self.receive_object(&tenant, request.into_inner()).await?;
        Ok(Response::new(UploadObjectResponse { object: Some(object.into()) }))
    }

    async fn upload_objects(
        &self,
        request: Request<Streaming<UploadObjectsRequest>>,
    ) -> Result<Response<UploadObjectsResponse>, Status> {
        let tenant = tenant(&request);
        self.receive_pack(&tenant, request.into_inner()).await?;
        Ok(Response::new(UploadObjectsResponse {}))
    }

    async fn join_objects(
        &self,
        request: Request<JoinObjectsRequest>,
    ) -> Result<Response<JoinObjectsResponse>, Status> {
        let tenant = tenant(&request);
        self.join(&tenant, request.into_inner()).await?;
        Ok(Response::new(JoinObjectsResponse {}))
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
        let (tenant, mut digests) = (tenant(&request), parse_digests(&request.get_ref().digests)?);
        // An object that does not exist leaves no record.
        let missing: HashSet<Digest> =
            self.objects.missing(&tenant, digests.clone()).await.map_err(status)?.into_iter().collect();
        digests.retain(|digest| !missing.contains(digest));
        let objects_gone_within_ms = self.engine.erase(&tenant, &digests).await?;
        Ok(Response::new(DeleteObjectsResponse { objects_gone_within_ms }))
    }
}
