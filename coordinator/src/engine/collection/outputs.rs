//! Checking what a worker says that it has made: the document is of the format that its task makes, and names what the task has read.
//!
//! A document that a user uploaded does not pass: an upload manifest has another format, and a result of another job names other inputs. A
//! user can upload a result of the right form for inputs of its own. But only a worker can report it, and the tenant then gets what it has
//! uploaded itself.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;
use sortinghat_proto::{Digest, ObjectRef, Tenant, manifest::References};

use super::{Collection, roots::references};
use crate::engine::error::EngineError;

/// How many documents are remembered. If there are more, all are forgotten and read again.
const MAX_REMEMBERED: usize = 1_000;
/// A document that names more objects is not remembered.
const MAX_NAMED: usize = 64;

/// What a task must make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expected {
    /// The format of the document.
    pub(crate) format: &'static str,
    /// The objects that the document must name.
    pub(crate) inputs: Vec<Digest>,
}

/// What a document states: its format, and the objects that it names.
#[derive(Debug, Default)]
struct Stated {
    format: String,
    named: HashSet<Digest>,
}

impl From<References> for Stated {
    fn from(found: References) -> Self {
        Self { format: found.format, named: found.objects.into_iter().map(|object| object.digest).collect() }
    }
}

/// What documents state that were read lately. A document never changes.
#[derive(Debug, Default)]
pub(super) struct Outputs(Mutex<HashMap<(Tenant, Digest), Arc<Stated>>>);

impl Outputs {
    fn known(&self, document: &(Tenant, Digest)) -> Option<Arc<Stated>> {
        self.0.lock().get(document).cloned()
    }

    fn remember(&self, document: (Tenant, Digest), stated: &Arc<Stated>) {
        if stated.named.len() > MAX_NAMED {
            return;
        }
        let mut known = self.0.lock();
        if known.len() >= MAX_REMEMBERED {
            known.clear();
        }
        known.insert(document, stated.clone());
    }
}

impl Collection {
    /// What keeps this object from being the output that is expected; `None` if nothing does.
    pub(crate) async fn fault_of_output(
        &self,
        tenant: &Tenant,
        output: &ObjectRef,
        expected: &Expected,
    ) -> Result<Option<String>, EngineError> {
        if !self.objects.shows_outputs() {
            return Ok(None);
        }
        let stated = self.stated(tenant, output).await?;
        if stated.format != expected.format {
            let found = if stated.format.is_empty() { "no document" } else { &stated.format };
            return Ok(Some(format!("it is {found}, and not a {} document", expected.format)));
        }
        let missing = expected.inputs.iter().find(|input| !stated.named.contains(input));
        Ok(missing.map(|input| format!("it does not name object {input}, which the task has read")))
    }

    /// What a document states; nothing if the object is no document.
    async fn stated(&self, tenant: &Tenant, document: &ObjectRef) -> Result<Arc<Stated>, EngineError> {
        let name = (tenant.clone(), document.digest.clone());
        if let Some(stated) = self.outputs.known(&name) {
            return Ok(stated);
        }
        let _memory = self.manifests.room_for(document.size_bytes).await;
        let found = match self.objects.document(tenant, &document.digest).await? {
            Some(content) => references(content).await,
            None => None,
        };
        let stated = Arc::new(found.map(Stated::from).unwrap_or_default());
        self.outputs.remember(name, &stated);
        Ok(stated)
    }
}
