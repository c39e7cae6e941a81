//! Page sizes and page tokens of lists.

use sortinghat_proto::{Refusal, limits::MAX_PAGE_SIZE};

/// The number of entries of a page for which a request asks: 0 stands for `default`, and more than the bound for the bound, as AIP-158
/// has it.
pub(crate) fn page_size(asked: u32, default: u32) -> usize {
    match asked {
        0 => default as usize,
        asked => asked.min(MAX_PAGE_SIZE) as usize,
    }
}

/// The refusal of a page token that no page has returned.
pub(crate) fn bad_token() -> Refusal {
    Refusal::invalid("page_token", "use the token of the page before, or nothing for the first page")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_as_many_entries_as_it_was_asked_for_up_to_the_bound() {
        let sizes = [0, 1, MAX_PAGE_SIZE, MAX_PAGE_SIZE + 1, u32::MAX].map(|asked| page_size(asked, 50));
        assert_eq!(sizes, [50, 1, 1000, 1000, 1000]);
    }
}
