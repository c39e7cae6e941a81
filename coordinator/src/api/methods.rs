//! The table of methods: who may call each, and which class of calls it belongs to. It states policy, which the descriptors of the contract
//! do not hold, so it is written by hand; a test compares it with them.

use crate::auth::Role;

/// One method of our services.
#[derive(Debug)]
pub(super) struct Method {
    /// The path of the request, such as `/sortinghat.v1.JobService/GetJob`.
    pub(super) path: &'static str,
    access: Access,
    /// The calls that this method shares its places with.
    pub(super) class: Class,
}

/// Who may call a method. An admin may call every method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Every caller with a token.
    Anyone,
    /// Users.
    Users,
    /// Workers.
    Workers,
}

/// A class of calls that share places, so that a flood of one class takes no place from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Brings one job.
    Submit,
    /// Brings many jobs.
    BulkSubmit,
    /// Takes a few reads and writes of the store.
    Brief,
    /// Moves the bytes of objects.
    Transfer,
    /// Lasts until a job ends, and costs next to nothing in the meantime.
    Watch,
    /// Comes from a worker. Under overload, these calls are the ones that shorten the queue.
    Worker,
}

impl Method {
    /// The service and the method, such as `JobService/GetJob`.
    pub(super) fn short_name(&self) -> &'static str {
        &self.path[PACKAGE.len()..]
    }

    /// Whether a caller with this role may call the method.
    pub(super) fn allows(&self, role: Role) -> bool {
        match (self.access, role) {
            (_, Role::Admin) | (Access::Anyone, Role::User | Role::Worker) => true,
            (Access::Users, Role::User) | (Access::Workers, Role::Worker) => true,
            (Access::Users, Role::Worker) | (Access::Workers, Role::User) => false,
        }
    }
}

/// The prefix of our own services' paths. The other services are health and reflection, which are open to everyone.
pub(super) const PACKAGE: &str = "/sortinghat.v1.";

const fn submit(path: &'static str, class: Class) -> Method {
    Method { path, access: Access::Users, class }
}

const fn brief(path: &'static str, access: Access) -> Method {
    Method { path, access, class: Class::Brief }
}

const fn transfer(path: &'static str, access: Access) -> Method {
    Method { path, access, class: Class::Transfer }
}

/// The method that a request's path names.
pub(super) fn find(path: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.path == path)
}

static METHODS: [Method; 23] = [
    submit("/sortinghat.v1.JobService/SubmitJob", Class::Submit),
    submit("/sortinghat.v1.JobService/SubmitJobs", Class::BulkSubmit),
    brief("/sortinghat.v1.JobService/GetJob", Access::Anyone),
    brief("/sortinghat.v1.JobService/ListJobs", Access::Anyone),
    Method { path: "/sortinghat.v1.JobService/WatchJob", access: Access::Anyone, class: Class::Watch },
    brief("/sortinghat.v1.JobService/CancelJob", Access::Users),
    brief("/sortinghat.v1.JobService/ExplainJob", Access::Anyone),
    brief("/sortinghat.v1.JobService/CancelJobs", Access::Users),
    submit("/sortinghat.v1.JobService/RetryJob", Class::Submit),
    brief("/sortinghat.v1.JobService/GetQueue", Access::Users),
    brief("/sortinghat.v1.JobService/PauseQueue", Access::Users),
    brief("/sortinghat.v1.JobService/ResumeQueue", Access::Users),
    brief("/sortinghat.v1.ArtifactService/FindMissingObjects", Access::Anyone),
    transfer("/sortinghat.v1.ArtifactService/UploadObject", Access::Users),
    transfer("/sortinghat.v1.ArtifactService/ReadObject", Access::Anyone),
    brief("/sortinghat.v1.ArtifactService/ListDatasets", Access::Anyone),
    brief("/sortinghat.v1.ArtifactService/GetDataset", Access::Anyone),
    brief("/sortinghat.v1.ArtifactService/DeleteDataset", Access::Users),
    brief("/sortinghat.v1.ArtifactService/ListModels", Access::Anyone),
    brief("/sortinghat.v1.ArtifactService/GetModel", Access::Anyone),
    brief("/sortinghat.v1.ArtifactService/DeleteModel", Access::Users),
    Method { path: "/sortinghat.v1.WorkerService/Synchronize", access: Access::Workers, class: Class::Worker },
    brief("/sortinghat.v1.WorkerService/ListWorkers", Access::Users),
];

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn every_method_of_the_contract_has_one_row_and_no_other_row_exists() {
        let files = prost_types::FileDescriptorSet::decode(sortinghat_proto::DESCRIPTORS).expect("valid").file;
        let mut contract: Vec<String> = files
            .iter()
            .filter(|file| file.package() == "sortinghat.v1")
            .flat_map(|file| &file.service)
            .flat_map(|service| {
                service.method.iter().map(|method| format!("{PACKAGE}{}/{}", service.name(), method.name()))
            })
            .collect();
        let mut rows: Vec<&str> = METHODS.iter().map(|method| method.path).collect();
        contract.sort();
        rows.sort();
        assert_eq!(rows, contract);
    }
}
