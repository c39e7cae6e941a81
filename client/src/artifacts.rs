//! Datasets and models.

use std::{future::Future, time::Duration};

use sortinghat_proto::{
    Digest, limits,
    v1::{
        Dataset, DeleteDatasetRequest, DeleteModelRequest, DeleteObjectsRequest, ErrorCode, GetDatasetRequest,
        GetModelRequest, ListDatasetsRequest, ListModelsRequest, Model,
    },
};
use tonic::{Response, Status};

use crate::{Client, ClientError, client::Artifacts, jobs::present};

impl Client {
    /// All datasets, by name, newest version first.
    ///
    /// # Errors
    /// [`ClientError`] if the server refuses or is lost.
    pub async fn list_datasets(&self) -> Result<Vec<Dataset>, ClientError> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListDatasetsRequest { page_size: limits::MAX_PAGE_SIZE, page_token };
            let call = |mut artifacts: Artifacts, request| async move { artifacts.list_datasets(request).await };
            let answer = self.call(self.artifacts(), request, call).await?;
            let page = answer;
            all.extend(page.datasets);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            page_token = page.next_page_token;
        }
    }

    /// The dataset `stamps@1`, or the newest `stamps`.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if there is none.
    pub async fn get_dataset(&self, name: &str) -> Result<Dataset, ClientError> {
        let request = GetDatasetRequest { name: name.to_owned() };
        let call = |mut artifacts: Artifacts, request| async move { artifacts.get_dataset(request).await };
        let answer = self.call(self.artifacts(), request, call).await?;
        present(answer.dataset, "dataset")
    }

    /// Removes the name `stamps@1`.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if there is none, or if `name` names no version.
    pub async fn delete_dataset(&self, name: &str) -> Result<(), ClientError> {
        self.get_dataset(name).await?;
        let request = DeleteDatasetRequest { name: name.to_owned() };
        let call = |mut artifacts: Artifacts, request| async move { artifacts.delete_dataset(request).await };
        self.remove(request, call).await
    }

    /// All models, by name, newest version first.
    ///
    /// # Errors
    /// [`ClientError`] if the server refuses or is lost.
    pub async fn list_models(&self) -> Result<Vec<Model>, ClientError> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListModelsRequest { page_size: limits::MAX_PAGE_SIZE, page_token };
            let call = |mut artifacts: Artifacts, request| async move { artifacts.list_models(request).await };
            let answer = self.call(self.artifacts(), request, call).await?;
            let page = answer;
            all.extend(page.models);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            page_token = page.next_page_token;
        }
    }

    /// The model `stamps/1`, or the newest `stamps`.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if there is none.
    pub async fn get_model(&self, name: &str) -> Result<Model, ClientError> {
        let request = GetModelRequest { name: name.to_owned() };
        let call = |mut artifacts: Artifacts, request| async move { artifacts.get_model(request).await };
        let answer = self.call(self.artifacts(), request, call).await?;
        present(answer.model, "model")
    }

    /// Removes the name `stamps/1`.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if there is none, or if `name` names no version.
    pub async fn delete_model(&self, name: &str) -> Result<(), ClientError> {
        self.get_model(name).await?;
        let request = DeleteModelRequest { name: name.to_owned() };
        let call = |mut artifacts: Artifacts, request| async move { artifacts.delete_model(request).await };
        self.remove(request, call).await
    }

    /// Asks for objects to be removed soon, unless a job, a dataset or a model refers to them. Returns after which time they are gone as a
    /// rule.
    ///
    /// # Errors
    /// [`ClientError`] if the server refuses or is lost. Then some of the objects may have been asked for.
    pub async fn delete_objects(&self, objects: &[Digest]) -> Result<Duration, ClientError> {
        let mut gone_within_ms = 0;
        for some in objects.chunks(limits::MAX_DIGESTS_PER_CALL) {
            let request = DeleteObjectsRequest { digests: some.iter().map(ToString::to_string).collect() };
            let call = |mut artifacts: Artifacts, request| async move { artifacts.delete_objects(request).await };
            gone_within_ms = self.call(self.artifacts(), request, call).await?.objects_gone_within_ms;
        }
        Ok(Duration::from_millis(gone_within_ms))
    }

    /// Removes something that was there a moment ago. If a repeated call finds nothing, an earlier call has removed it and only its answer
    /// was lost.
    async fn remove<Q, A, F>(&self, request: Q, mut method: impl FnMut(Artifacts, Q) -> F) -> Result<(), ClientError>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut calls = 0;
        let counted = |artifacts, request| {
            calls += 1;
            method(artifacts, request)
        };
        match self.call(self.artifacts(), request, counted).await {
            Err(ClientError::Refused(refusal)) if refusal.code == ErrorCode::NotFound && calls > 1 => Ok(()),
            removed => removed.map(drop),
        }
    }
}
