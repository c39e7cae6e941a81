//! The API as clients see it: real servers on loopback, the generated client, and the real binary where a process is killed.

mod access;
mod access_table;
mod artifacts;
mod bounds;
mod certificates;
mod full_disk;
mod harness;
mod jobs;
mod mutual_tls;
mod overload;
mod process;
mod reload;
mod secured;
mod serving;
mod successes;
mod two_coordinators;
mod uploads;
mod visitors;
