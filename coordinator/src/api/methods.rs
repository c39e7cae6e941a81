//! The table of methods: who may call each, and how many calls of it there may be.

use crate::auth::Role;

/// One method of our services.
#[derive(Debug)]
pub(super) struct Method {
    /// As it stands in the request: `/sortinghat.v1.JobService/GetJob`.
    pub(super) path: &'static str,
    access: Access,
    /// Which calls it shares its places with.
    pub(super) class: Class,
}

/// Who may call a method. An admin may call all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Whoever has a token.
    Anyone,
    /// Users.
    Users,
    /// Workers.
    Workers,
}

/// Calls that share places, so that a flood of one class takes nothing from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Brings a job.
    Submit,
    /// Brings many jobs.
    BulkSubmit,
    /// Lasts as long as a few reads and writes of the store.
    Brief,
    /// Moves bytes.
    Transfer,
    /// Lasts until a job ends; costs next to nothing meanwhile.
    Watch,
    /// Keeps work going: under overload it is what gets the queue shorter.
    Worker,
}

impl Method {
    /// `JobService/GetJob`.
    pub(super) fn short_name(&self) -> &'static str {
        &self.path[PACKAGE.len()..]
    }

    /// Whether `role` may call it.
    pub(super) fn allows(&self, role: Role) -> bool {
        match (self.access, role) {
            (_, Role::Admin) | (Access::Anyone, Role::User | Role::Worker) => true,
            (Access::Users, Role::User) | (Access::Workers, Role::Worker) => true,
            (Access::Users, Role::Worker) | (Access::Workers, Role::User) => false,
        }
    }
}

/// How the paths of our own services begin; other services are health and reflection, open to everyone.
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

/// The method at a request's path.
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
    fn every_method_of_the_contract_has_its_row_and_no_row_is_left_over() {
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
