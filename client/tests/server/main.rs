//! The SDK and `hat` against a real coordinator on loopback. Nothing needs libtorch: the results of the worker are made up.

mod coordinator;
mod failures;
mod gallery;
mod hat;
mod help;
mod interrupt;
mod jobs;
mod machine;
mod names;
mod results;
mod sdk;
mod sorting;
mod sources;
mod terminal;
mod worker;
