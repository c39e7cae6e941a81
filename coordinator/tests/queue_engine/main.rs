//! Tests of the engine over real stores: jobs from their submission to their end, workers that die, the collection of objects, and the
//! separation of tenants.

mod collection;
mod collection_races;
mod collection_random;
mod erasure;
mod explain;
mod health;
mod identities;
mod interrupted;
mod jobs;
mod keeper;
mod keeping;
mod leases;
mod many;
mod predictions;
mod preemption;
mod preference;
mod prefetch;
mod retention;
mod retries;
mod scheduling;
mod shards;
mod shelf;
mod simulation;
mod sweeps;
mod tenants;
mod times;
mod unsure;
mod workers;
mod world;
