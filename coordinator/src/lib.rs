//! The coordinator: the durable queue, the artifact registry and the gRPC API. It knows no tensor and no pixel.
//!
//! [`config::Config`] -> [`app::App::build`] -> [`app::App::serve`], which drains when it is told to stop.

mod api;
pub mod app;
pub mod auth;
pub mod config;
pub mod engine;
mod metrics;
pub mod objects;
pub mod queue;
pub mod store;
