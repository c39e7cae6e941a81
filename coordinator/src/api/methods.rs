//! The table of methods: who may call each, and which class of calls it belongs to. It states policy, which the descriptors of the contract
//! do not hold, so it is written by hand; a test compares it with them.

use crate::auth::Role;

/// One method of the server.
#[derive(Debug)]
pub(super) struct Method {
    /// The path of the request, such as `/sortinghat.v1.JobService/GetJob`.
    pub(super) path: &'static str,
    access: Access,
    /// The calls that this method shares its places with.
    pub(super) class: Class,
}

/// Who may call a method. An admin is a user, and a worker for its own tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Everybody, without a token.
    Everybody,
    /// Every caller with a valid token.
    Anyone,
    /// Users.
    Users,
    /// Users, for what belongs to their tenant, and operators, for what belongs to any.
    UsersAndOperators,
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
    /// Needs no token: health checks and reflection.
    Open,
    /// Comes from a worker. Under overload, these calls are the ones that shorten the queue.
    Worker,
}

impl Method {
    /// The service and the method, such as `JobService/GetJob`.
    pub(super) fn short_name(&self) -> &'static str {
        self.path.strip_prefix(PACKAGE).unwrap_or(&self.path[1..])
    }

    /// Whether the method needs no token.
    pub(super) fn is_open(&self) -> bool {
        self.access == Access::Everybody
    }

    /// Whether a caller with this role may call the method.
    pub(super) fn allows(&self, role: Role) -> bool {
        match (self.access, role) {
            (Access::Everybody | Access::Anyone, _) | (_, Role::Everyone | Role::Admin) => true,
            (Access::Users | Access::UsersAndOperators, Role::User) => true,
            (Access::UsersAndOperators, Role::Operator) | (Access::Workers, Role::Worker) => true,
            (Access::Users | Access::UsersAndOperators, Role::Worker) => false,
            (Access::Users | Access::Workers, Role::Operator) | (Access::Workers, Role::User) => false,
        }
    }
}

/// The prefix of our own services' paths.
const PACKAGE: &str = "/sortinghat.v1.";

const fn submit(path: &'static str, class: Class) -> Method {
    Method { path, access: Access::Users, class }
}

const fn brief(path: &'static str, access: Access) -> Method {
    Method { path, access, class: Class::Brief }
}

const fn transfer(path: &'static str, access: Access) -> Method {
    Method { path, access, class: Class::Transfer }
}

const fn open(path: &'static str) -> Method {
    Method { path, access: Access::Everybody, class: Class::Open }
}

/// All methods.
pub(super) fn all() -> impl Iterator<Item = &'static Method> {
    METHODS.iter()
}

/// The method that a request's path names.
pub(super) fn find(path: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.path == path)
}

static METHODS: [Method; 33] = [
    submit("/sortinghat.v1.JobService/SubmitJob", Class::Submit),
    submit("/sortinghat.v1.JobService/SubmitJobs", Class::BulkSubmit),
    brief("/sortinghat.v1.JobService/GetJob", Access::Users),
    brief("/sortinghat.v1.JobService/ListJobs", Access::Users),
    Method { path: "/sortinghat.v1.JobService/WatchJob", access: Access::Users, class: Class::Watch },
    Method { path: "/sortinghat.v1.JobService/WatchPredictions", access: Access::Users, class: Class::Watch },
    brief("/sortinghat.v1.JobService/CancelJob", Access::Users),
    brief("/sortinghat.v1.JobService/ExplainJob", Access::Users),
    brief("/sortinghat.v1.JobService/CancelJobs", Access::Users),
    brief("/sortinghat.v1.JobService/DeleteJob", Access::Users),
    submit("/sortinghat.v1.JobService/RetryJob", Class::Submit),
    brief("/sortinghat.v1.JobService/GetQueue", Access::UsersAndOperators),
    brief("/sortinghat.v1.JobService/PauseQueue", Access::UsersAndOperators),
    brief("/sortinghat.v1.JobService/ResumeQueue", Access::UsersAndOperators),
    brief("/sortinghat.v1.ArtifactService/FindMissingObjects", Access::Users),
    transfer("/sortinghat.v1.ArtifactService/UploadObject", Access::Users),
    transfer("/sortinghat.v1.ArtifactService/UploadObjects", Access::Users),
    transfer("/sortinghat.v1.ArtifactService/JoinObjects", Access::Users),
    transfer("/sortinghat.v1.ArtifactService/ReadObject", Access::Users),
    brief("/sortinghat.v1.ArtifactService/ListDatasets", Access::Users),
    brief("/sortinghat.v1.ArtifactService/GetDataset", Access::Users),
    brief("/sortinghat.v1.ArtifactService/DeleteDataset", Access::Users),
    brief("/sortinghat.v1.ArtifactService/ListModels", Access::Users),
    brief("/sortinghat.v1.ArtifactService/GetModel", Access::Users),
    brief("/sortinghat.v1.ArtifactService/DeleteModel", Access::Users),
    brief("/sortinghat.v1.ArtifactService/DeleteObjects", Access::Users),
    Method { path: "/sortinghat.v1.WorkerService/Synchronize", access: Access::Workers, class: Class::Worker },
    brief("/sortinghat.v1.WorkerService/ListWorkers", Access::UsersAndOperators),
    brief("/sortinghat.v1.IdentityService/WhoAmI", Access::Anyone),
    open("/grpc.health.v1.Health/Check"),
    open("/grpc.health.v1.Health/Watch"),
    open("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
    open("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
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
        let mut rows: Vec<&str> = METHODS.iter().filter(|method| !method.is_open()).map(|method| method.path).collect();
        contract.sort();
        rows.sort();
        assert_eq!(rows, contract);
    }
}
