//! The memory of uploads in flight. An upload takes as much as it may hold before its bytes are read, and waits if there is not enough.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use sortinghat_proto::{Tenant, limits};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tonic::Status;

use super::busy;

/// How long an upload waits for memory.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// The memory is counted in units of so many bytes.
const UNIT: usize = 1 << 10;
/// The memory of all uploads.
const ALL: usize = limits::MAX_UPLOAD_BYTES_IN_FLIGHT / UNIT;

/// The memory that uploads in flight may hold, in all and of each tenant.
#[derive(Debug, Clone)]
pub(in crate::api) struct UploadMemory {
    all: Arc<Semaphore>,
    /// Three quarters of it for each tenant that uploads now.
    of_tenants: Arc<Mutex<HashMap<Tenant, Weak<Semaphore>>>>,
}

/// The memory of one upload. It is free again when this is dropped.
#[derive(Debug)]
pub(in crate::api) struct Held {
    _of_all: OwnedSemaphorePermit,
    _of_tenant: OwnedSemaphorePermit,
}

impl Default for UploadMemory {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(ALL)), of_tenants: Arc::default() }
    }
}

impl UploadMemory {
    /// Takes so many bytes, and waits for them if they are held by other uploads.
    ///
    /// # Errors
    /// The refusal that says when to try again, if they did not become free in time.
    pub(in crate::api) async fn take(&self, tenant: &Tenant, bytes: usize) -> Result<Held, Status> {
        let of_tenant = self.of_tenant(tenant);
        // No upload holds more than a tenant may.
        let units = u32::try_from(bytes.div_ceil(UNIT).min(ALL / 4)).unwrap_or(u32::MAX);
        let taken = timeout(LONGEST_WAIT, async {
            // The tenant's part comes first, so that a tenant with many uploads waits for itself and holds nothing of the others.
            let of_tenant = of_tenant.acquire_many_owned(units).await;
            (of_tenant, self.all.clone().acquire_many_owned(units).await)
        });
        match taken.await {
            Ok((Ok(of_tenant), Ok(of_all))) => Ok(Held { _of_all: of_all, _of_tenant: of_tenant }),
            _ => Err(busy(
                "the coordinator holds as many bytes of uploads as it can: try again in a moment",
                LONGEST_WAIT / 10,
            )),
        }
    }

    fn of_tenant(&self, tenant: &Tenant) -> Arc<Semaphore> {
        let mut of_tenants = self.of_tenants.lock();
        if let Some(part) = of_tenants.get(tenant).and_then(Weak::upgrade) {
            return part;
        }
        of_tenants.retain(|_, part| part.strong_count() > 0);
        let part = Arc::new(Semaphore::new(ALL - ALL / 4));
        of_tenants.insert(tenant.clone(), Arc::downgrade(&part));
        part
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn uploads_of_one_tenant_wait_for_each_other_and_leave_memory_to_the_others() {
        let (memory, big) = (UploadMemory::default(), 24 << 20);
        let [slow, quick] = ["slow", "quick"].map(|name| name.parse().expect("a tenant"));
        let mut parked = Vec::new();
        let refused = loop {
            match memory.take(&slow, big).await {
                Ok(held) => parked.push(held),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(parked.len(), limits::MAX_UPLOAD_BYTES_IN_FLIGHT / 4 * 3 / big);
        drop(memory.take(&quick, big).await.expect("there is memory for others"));
        parked.pop();
        memory.take(&slow, big).await.expect("one of its uploads has ended");
        drop(parked);
        memory.take(&quick, big).await.expect("all memory is free");
        assert_eq!(memory.all.available_permits(), ALL);
    }
}
