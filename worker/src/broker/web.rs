//! The web, for tasks that gather. What their executor may ask for, and until when, is in its [`Grant`](super::Grant).

use std::path::PathBuf;

use sortinghat_photos::ImageFormat;
use sortinghat_proto::{
    GatherFrom, GatherSpec, Licence, Tenant,
    executor::v1::{FetchPhoto, SearchPhotos},
    limits::{MAX_QUERY_BYTES, MAX_URL_BYTES},
};

use super::failure::Failure;
use crate::fetch::{
    FetchError, FetchOptions, Fetched, Fetcher, How, Rights,
    providers::{Providers, Search, SearchError},
};

/// What a broker needs for tasks that gather.
#[derive(Debug, Clone)]
pub struct WebOptions {
    /// Whose tasks may.
    pub rights: Rights,
    /// How the worker fetches.
    pub fetch: FetchOptions,
    /// The folder of provider files.
    pub providers_dir: PathBuf,
}

impl Default for WebOptions {
    /// Nobody may.
    fn default() -> Self {
        Self { rights: Rights::Nobody, fetch: FetchOptions::default(), providers_dir: PathBuf::new() }
    }
}

/// The web, for all executors of this worker.
pub(super) struct Web {
    rights: Rights,
    fetcher: Fetcher,
    providers: Providers,
}

/// What the executor of a task that gathers may ask of the web.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WebGrant {
    /// Who is asked for photos, and for which; `None` if URLs are listed.
    search: Option<(String, Licence)>,
    allows_http: bool,
}

impl WebGrant {
    pub(super) fn of(spec: &GatherSpec) -> Self {
        let search = match &spec.from {
            GatherFrom::Search(search) => Some((search.provider.to_string(), search.licence)),
            GatherFrom::Urls(_) => None,
        };
        Self { search, allows_http: spec.allow_http }
    }
}

impl Web {
    /// Reads the provider files.
    ///
    /// # Errors
    /// A message, if one of them cannot be used.
    pub(super) fn open(options: &WebOptions) -> Result<Self, String> {
        let fetcher = Fetcher::new(&options.fetch)?;
        let providers = Providers::open(&options.providers_dir).map_err(|error| error.to_string())?;
        Ok(Self { rights: options.rights.clone(), fetcher, providers })
    }

    fn check(&self, tenant: &Tenant) -> Result<(), Failure> {
        match self.rights.include(tenant) {
            true => Ok(()),
            false => Err(Failure::NotAllowed(format!(
                "the worker does not allow the tenant {tenant} to gather photos from the web: its operator can"
            ))),
        }
    }

    /// A page of what the provider finds, as JSON.
    pub(super) async fn search(
        &self,
        tenant: &Tenant,
        grant: Option<&WebGrant>,
        asked: SearchPhotos,
    ) -> Result<Vec<u8>, Failure> {
        let Some((provider, licence)) = grant.and_then(|grant| grant.search.as_ref()) else {
            return Err(Failure::Refused("the task does not search".to_owned()));
        };
        self.check(tenant)?;
        if asked.query.len() > MAX_QUERY_BYTES || asked.cursor.len() > MAX_QUERY_BYTES {
            return Err(Failure::Refused("a search is too long".to_owned()));
        }
        let search = Search { query: &asked.query, licence: *licence };
        let cursor = Some(asked.cursor.as_str()).filter(|cursor| !cursor.is_empty());
        let page = self.providers.search(&self.fetcher, provider, &search, cursor).await;
        let page = page.map_err(|error| match error {
            SearchError::Unusable(why) => Failure::ProviderUnusable(why),
            SearchError::Unavailable(why) => Failure::ProviderUnavailable(why),
        })?;
        serde_json::to_vec(&page).map_err(|error| Failure::ProviderUnusable(error.to_string()))
    }

    /// A photo and the ending of its format, or why there is none.
    pub(super) async fn photo(
        &self,
        tenant: &Tenant,
        grant: Option<&WebGrant>,
        asked: &FetchPhoto,
    ) -> Result<Result<(Fetched, &'static str), FetchError>, Failure> {
        let Some(grant) = grant else {
            return Err(Failure::Refused("the task fetches nothing, or nothing any more".to_owned()));
        };
        self.check(tenant)?;
        if asked.url.len() > MAX_URL_BYTES {
            return Ok(Err(FetchError::BadUrl(format!("it has more than {MAX_URL_BYTES} bytes"))));
        }
        let how = How { allows_http: grant.allows_http, asks_robots: asked.asks_robots };
        let fetched = self.fetcher.photo(&asked.url, how).await;
        Ok(fetched.map(|fetched| {
            let ending =
                ImageFormat::sniff(&fetched.bytes).ok().and_then(|format| format.extensions().first().copied());
            (fetched, ending.unwrap_or("photo"))
        }))
    }
}
