//! The report: what its page says, that no name breaks it, and how it works in a browser.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test binary: what fails, fails the test")]

mod audit;
mod browser;
mod sample;
mod text;
