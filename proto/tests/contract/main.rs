//! The contract, from outside: what is validated, and that every type survives its way over the wire or into a stored document.
//!
//! `strategies` draws random values of every type. It matches exhaustively over the kinds of jobs, so that a new kind is covered as
//! soon as it compiles.

mod documents;
mod json;
mod kinds;
mod names;
mod refusals;
mod scheduling;
mod specs;
mod strategies;

use proptest::test_runner::Config;

/// The cases of a property. All properties together take about a second, and every run draws new cases.
fn config() -> Config {
    Config { cases: 256, failure_persistence: None, ..Config::default() }
}
