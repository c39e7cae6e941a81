//! Page sizes and page tokens of lists.

use sortinghat_proto::{Refusal, limits::MAX_PAGE_SIZE};

/// Validates the number of entries that a request asks for; 0 stands for `default`.
pub(crate) fn page_size(asked: u32, default: u32) -> Result<usize, Refusal> {
    match asked {
        0 => Ok(default as usize),
        1..=MAX_PAGE_SIZE => Ok(asked as usize),
        _ => Err(Refusal::invalid("page_size", format!("page_size must be 1 to {MAX_PAGE_SIZE}, not {asked}"))),
    }
}

/// The refusal of a page token that no page has returned.
pub(crate) fn bad_token() -> Refusal {
    Refusal::invalid("page_token", "use the token of the page before, or nothing for the first page")
}
