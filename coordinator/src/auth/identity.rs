//! Identities: who a caller is, and what that lets the caller do.

use std::{collections::BTreeSet, fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use sortinghat_proto::{Name, Tenant, time::UnixMs};

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Submits jobs of its tenant and reads their results.
    User,
    /// A user that may also run workers, for its own tenant only.
    Admin,
    /// Runs tasks of the tenants that it serves, and does nothing else.
    Worker,
    /// Looks after the workers and the queues of all tenants, and sees no photo and no result.
    Operator,
    /// All of these at once, for the tenant [`Tenant::local`]: everybody on a coordinator without a tokens file. No token has this role.
    #[serde(skip)]
    Everyone,
}

impl Role {
    /// Every role that a token can have.
    pub const OF_TOKENS: [Self; 4] = [Self::User, Self::Admin, Self::Worker, Self::Operator];

    /// The role's name in the tokens file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
            Self::Worker => "worker",
            Self::Operator => "operator",
            Self::Everyone => "everyone",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The tenants whose tasks a caller may run as a worker. It is cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Served {
    /// Every tenant, also those that come later.
    All,
    /// These tenants.
    These(Arc<BTreeSet<Tenant>>),
}

impl Served {
    /// No tenant: the caller is no worker.
    pub fn none() -> Self {
        Self::These(Arc::default())
    }

    /// This tenant alone.
    pub fn only(tenant: Tenant) -> Self {
        Self::These(Arc::new(BTreeSet::from([tenant])))
    }

    /// Whether the tasks of a tenant may be run.
    pub fn has(&self, tenant: &Tenant) -> bool {
        match self {
            Self::All => true,
            Self::These(tenants) => tenants.contains(tenant),
        }
    }

    /// Whether the tasks of any other tenant may be run.
    pub fn has_others_than(&self, tenant: &Tenant) -> bool {
        match self {
            Self::All => true,
            Self::These(tenants) => tenants.iter().any(|served| served != tenant),
        }
    }

    /// The tenants as the tokens file writes them: `["*"]` for every tenant.
    pub fn to_names(&self) -> Vec<String> {
        match self {
            Self::All => vec!["*".to_owned()],
            Self::These(tenants) => tenants.iter().map(ToString::to_string).collect(),
        }
    }
}

/// How much a caller may see of what tenants share: the workers, and who waits for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// Everything, since the caller is an operator or there is one tenant only.
    Everything,
    /// What the caller's own tenant has of it.
    OwnTenant,
}

/// By what a caller is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// Nothing was asked for.
    None,
    /// A token.
    Token,
    /// A certificate with this name.
    Certificate(String),
}

/// An authenticated caller. Handlers find it in the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The name of the identity: the `id` of the caller's token or certificate in the tokens file.
    pub id: Name,
    /// By what the caller is known.
    pub proof: Proof,
    /// What the caller may do.
    pub role: Role,
    /// The tenant whose jobs and objects the caller sees; `None` for workers and operators, who see none.
    pub tenant: Option<Tenant>,
    /// The tenants whose tasks the caller may run.
    pub serves: Served,
    /// When the token or the certificate stops being valid.
    pub expires: Option<UnixMs>,
    /// Whether the coordinator has users of one tenant only, so that nothing has to be hidden from them.
    pub is_alone: bool,
}

impl Caller {
    /// Everybody, on a coordinator without a tokens file.
    pub fn everyone() -> Self {
        Self {
            id: "everyone".parse().expect("it is a name"),
            proof: Proof::None,
            role: Role::Everyone,
            tenant: Some(Tenant::local()),
            serves: Served::All,
            expires: None,
            is_alone: true,
        }
    }

    /// Whether this is the same identity with the same rights. By what it is known, and until when, does not matter.
    pub fn is_same(&self, other: &Self) -> bool {
        let rights = |caller: &Self| (caller.id.clone(), caller.role, caller.tenant.clone(), caller.serves.clone());
        rights(self) == rights(other)
    }

    /// How much the caller may see of what tenants share.
    pub fn sight(&self) -> Sight {
        if self.is_alone || self.role == Role::Operator { Sight::Everything } else { Sight::OwnTenant }
    }
}
