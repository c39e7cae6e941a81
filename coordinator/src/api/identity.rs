//! `IdentityService`.

use sortinghat_proto::{
    time::UnixMs,
    v1::{WhoAmIRequest, WhoAmIResponse, identity_service_server::IdentityService},
};
use tonic::{Request, Response, Status};

use super::caller;
use crate::auth::{Caller, Proof};

/// The service.
#[derive(Clone)]
pub(super) struct Identities;

#[tonic::async_trait]
impl IdentityService for Identities {
    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<WhoAmIResponse>, Status> {
        let Caller { id, proof, role, tenant, serves, expires, is_alone: _ } = caller(&request);
        let certificate = match proof {
            Proof::Certificate(name) => name,
            Proof::Token | Proof::None => String::new(),
        };
        Ok(Response::new(WhoAmIResponse {
            id: id.into(),
            role: role.to_string(),
            tenant: tenant.map(String::from).unwrap_or_default(),
            serves: serves.to_names(),
            certificate,
            expires_unix_ms: expires.map_or(0, UnixMs::to_wire),
        }))
    }
}
