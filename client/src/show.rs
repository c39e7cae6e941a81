//! How things look: numbers, tables, and JSON.

pub(crate) mod evaluation;
pub(crate) mod json;
pub(crate) mod numbers;
pub(crate) mod plain;
pub(crate) mod table;
