//! Photos from the web, which the worker fetches for tasks that gather.

use std::io::Read as _;

use sortinghat_proto::{
    ObjectRef,
    executor::v1::{
        EndFetching, FetchPhoto, FetchedPhoto, SearchPhotos, object_answer::Answer, object_request::Request,
    },
};

use super::{ObjectError, TenantObjects, failed, file_of};

/// A photo that was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Photo {
    /// The file as it came.
    pub(crate) object: ObjectRef,
    /// The ending that the names of files of its format have.
    pub(crate) ending: String,
}

impl TenantObjects {
    /// A page of what the provider that the task's spec names finds for `query`, as JSON. `cursor` is what the page before has said.
    ///
    /// # Errors
    /// [`ObjectError::NotAllowed`] or [`ObjectError::Provider`].
    pub(crate) fn search_photos(&self, query: &str, cursor: Option<&str>) -> Result<Vec<u8>, ObjectError> {
        let action = "search for photos";
        let search = SearchPhotos { query: query.to_owned(), cursor: cursor.unwrap_or_default().to_owned() };
        let answered = self.connection.ask(action, Request::Search(search), None, &self.waiting)?;
        let (_, mut file) = file_of(action, None, answered)?;
        let mut page = Vec::new();
        file.read_to_end(&mut page).map_err(ObjectError::machine(action))?;
        Ok(page)
    }

    /// Fetches a URL and stores what is there, or says why that is not to be had.
    ///
    /// # Errors
    /// [`ObjectError::NotAllowed`], or [`ObjectError::Unavailable`] if it cannot be stored.
    pub(crate) fn fetch_photo(&self, url: &str, asks_robots: bool) -> Result<Result<Photo, String>, ObjectError> {
        let action = "fetch a photo";
        self.persist(|| {
            let request = Request::Fetch(FetchPhoto { url: url.to_owned(), asks_robots });
            match self.connection.ask(action, request, None, &self.waiting)?.0 {
                Answer::Photo(FetchedPhoto { object: Some(object), ending }) => {
                    let refused = |refusal: sortinghat_proto::Refusal| ObjectError::Refused {
                        action: action.to_owned(),
                        reason: refusal.to_string(),
                    };
                    Ok(Ok(Photo { object: ObjectRef::try_from(object).map_err(refused)?, ending }))
                }
                Answer::NotFetched(why) => Ok(Err(why.reason)),
                answer => Err(failed(action, None, answer)),
            }
        })
    }

    /// Gives up the web for the rest of the task. A task does so before it decodes a photo, which may take its process over.
    ///
    /// # Errors
    /// [`ObjectError::Refused`].
    pub(crate) fn end_fetching(&self) -> Result<(), ObjectError> {
        let action = "end fetching";
        match self.connection.ask(action, Request::EndFetching(EndFetching {}), None, &self.waiting)?.0 {
            Answer::Noted(_) => Ok(()),
            answer => Err(failed(action, None, answer)),
        }
    }
}
