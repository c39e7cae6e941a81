//! Datasets, models, and the objects behind them.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use sortinghat_proto::{
    Digest, ObjectRef, limits,
    manifest::{self, Document},
    v1::{
        Dataset, DeleteDatasetRequest, DeleteModelRequest, GetDatasetRequest, GetModelRequest, ListDatasetsRequest,
        ListModelsRequest, Model, ReadObjectRequest,
    },
};

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
        let request = DeleteDatasetRequest { name: name.to_owned() };
        // Not repeated: a second try that finds nothing would report the success of the first as a failure.
        self.artifacts().delete_dataset(request).await.map(drop).map_err(ClientError::of)
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
        let request = DeleteModelRequest { name: name.to_owned() };
        self.artifacts().delete_model(request).await.map(drop).map_err(ClientError::of)
    }

    /// The whole content of an object, checked against its digest.
    ///
    /// # Errors
    /// [`ClientError::CorruptObject`] if it is not what the digest says.
    pub async fn read_object(&self, object: &ObjectRef) -> Result<Vec<u8>, ClientError> {
        let mut content = Vec::new();
        self.receive_object(object, &mut content, Path::new("memory")).await?;
        Ok(content)
    }

    /// Writes an object to `path`, which appears only once it is whole and checked.
    ///
    /// # Errors
    /// [`ClientError::CorruptObject`] if it is not what the digest says, [`ClientError::File`] if it cannot be written.
    pub async fn save_object(&self, object: &ObjectRef, path: &Path) -> Result<(), ClientError> {
        let staged = staged(path);
        let mut file = fs::File::create(&staged).map_err(ClientError::writing(path))?;
        match self.receive_object(object, &mut file, path).await {
            Ok(()) => fs::rename(&staged, path).map_err(ClientError::writing(path)),
            Err(error) => {
                // What is half is of no use to anyone; the error says what happened.
                let _ = fs::remove_file(&staged);
                Err(error)
            }
        }
    }

    /// A stored document.
    ///
    /// # Errors
    /// [`ClientError::Document`] if it is of another format or version.
    pub async fn read_document<T: Document>(&self, object: &ObjectRef) -> Result<T, ClientError> {
        let bytes = self.read_object(object).await?;
        manifest::decode(&bytes).map_err(|source| ClientError::Document { digest: object.digest.clone(), source })
    }

    async fn receive_object(&self, object: &ObjectRef, sink: &mut impl Write, path: &Path) -> Result<(), ClientError> {
        let digest = object.digest.to_string();
        let call = || {
            let (mut service, request) = (self.artifacts(), ReadObjectRequest { digest: digest.clone() });
            async move { service.read_object(request).await }
        };
        let mut pieces = self.retry(call).await?.into_inner();
        let (mut hasher, mut received) = (Sha256::new(), 0);
        while let Some(piece) = pieces.message().await.map_err(ClientError::of)? {
            hasher.update(&piece.data);
            received += piece.data.len() as u64;
            sink.write_all(&piece.data).map_err(ClientError::writing(path))?;
        }
        if Digest::from_hasher(hasher) == object.digest {
            return Ok(());
        }
        let reason = format!("{received} of {} bytes came, with another digest", object.size_bytes);
        Err(ClientError::CorruptObject { digest: object.digest.clone(), reason })
    }
}

/// Where a file is written before it appears under its own name.
pub(crate) fn staged(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}
