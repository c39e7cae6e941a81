//! What `hat` prints and how it ends, for every command that needs no libtorch: the real binary against a real coordinator on loopback,
//! with a worker whose results the tests decide. Ids, times and digests are left out of the snapshots.

mod coordinator;
mod failures;
mod hat;
mod help;
mod jobs;
mod results;
mod worker;
