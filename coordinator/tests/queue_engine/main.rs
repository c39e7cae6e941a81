//! The engine over real stores: jobs from submission to their end, workers that die, and what nobody may see.

mod jobs;
mod leases;
mod scheduling;
mod tenants;
mod workers;
mod world;
