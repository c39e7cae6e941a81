//! Datasets and models.

use std::future::Future;

use sortinghat_proto::{
    limits,
    v1::{
        Dataset, DeleteDatasetRequest, DeleteModelRequest, ErrorCode, GetDatasetRequest, GetModelRequest,
        ListDatasetsRequest, ListModelsRequest, Model,
    },
};
use tonic::Status;

use crate::{Client, ClientError, jobs::present};

impl Client {
    /// All datasets, by name, newest version first.
    ///
    /// # Errors
    /// [`ClientError`] if the server refuses or is lost.
    pub async fn list_datasets(&self) -> Result<Vec<Dataset>, ClientError> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListDatasetsRequest { page_size: limits::MAX_PAGE_SIZE, page_token };
            let call = || {
                let (mut service, request) = (self.artifacts(), request.clone());
                async move { service.list_datasets(request).await }
            };
            let page = self.retry(call).await?.into_inner();
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
        let call = || {
            let (mut service, request) = (self.artifacts(), GetDatasetRequest { name: name.to_owned() });
            async move { service.get_dataset(request).await }
        };
        present(self.retry(call).await?.into_inner().dataset, "dataset")
    }

    /// Removes the name `stamps@1`.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if there is none or the version is missing.
    pub async fn delete_dataset(&self, name: &str) -> Result<(), ClientError> {
        self.get_dataset(name).await?;
        let call = || {
            let (mut service, request) = (self.artifacts(), DeleteDatasetRequest { name: name.to_owned() });
            async move { service.delete_dataset(request).await }
        };
        self.remove(call).await
    }

    /// All models, by name, newest version first.
    ///
    /// # Errors
    /// [`ClientError`] if the server refuses or is lost.
    pub async fn list_models(&self) -> Result<Vec<Model>, ClientError> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListModelsRequest { page_size: limits::MAX_PAGE_SIZE, page_token };
            let call = || {
                let (mut service, request) = (self.artifacts(), request.clone());
                async move { service.list_models(request).await }
            };
            let page = self.retry(call).await?.into_inner();
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
        let call = || {
            let (mut service, request) = (self.artifacts(), GetModelRequest { name: name.to_owned() });
            async move { service.get_model(request).await }
        };
        present(self.retry(call).await?.into_inner().model, "model")
    }

    /// Removes the name `stamps/1`.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if there is none or the version is missing.
    pub async fn delete_model(&self, name: &str) -> Result<(), ClientError> {
        self.get_model(name).await?;
        let call = || {
            let (mut service, request) = (self.artifacts(), DeleteModelRequest { name: name.to_owned() });
            async move { service.delete_model(request).await }
        };
        self.remove(call).await
    }

    /// Removes what was there a moment ago. Where a repeated call finds nothing, an earlier one whose answer was lost has removed it.
    async fn remove<T, F>(&self, mut call: impl FnMut() -> F) -> Result<(), ClientError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let mut calls = 0;
        let counted = || {
            calls += 1;
            call()
        };
        match self.retry(counted).await {
            Err(ClientError::Refused(refusal)) if refusal.code == ErrorCode::NotFound && calls > 1 => Ok(()),
            removed => removed.map(drop),
        }
    }
}
