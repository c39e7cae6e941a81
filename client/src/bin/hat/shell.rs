//! Command lines that a person can paste into a shell.

use std::{borrow::Cow, ffi::OsStr};

/// A word, quoted if a shell would read it otherwise.
pub(crate) fn word(text: impl AsRef<OsStr>) -> String {
    let text = text.as_ref().to_string_lossy();
    shlex::try_quote(&text).map_or_else(|_| text.to_string(), Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_only_where_a_shell_would_read_it_otherwise() {
        assert_eq!(word("holiday/p.csv"), "holiday/p.csv");
        assert_eq!(word("my photos/p.csv"), "'my photos/p.csv'");
    }
}
