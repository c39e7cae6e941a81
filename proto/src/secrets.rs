//! The rule that keeps secrets out of messages that quote an address: people write passwords into addresses, and query parameters hold keys.

use std::borrow::Cow;

/// What stands for a part that is not shown.
const HIDDEN: &str = "***";

/// An address without what may be a secret in it: a user's name and password, a query, a fragment. Text that is no address, but may have been
/// meant as one, loses the same parts; any other text stays as it is.
pub fn without_secrets(address: &str) -> Cow<'_, str> {
    let (scheme, rest) = match address.split_once("//") {
        Some((scheme, rest)) => (&address[..scheme.len() + 2], rest),
        None => ("", address),
    };
    // A password may hold any of the signs that separate the other parts, so that the last `@` ends it.
    let (user, rest) = match rest.rsplit_once('@') {
        Some((_, rest)) => (format!("{HIDDEN}@"), rest),
        None => (String::new(), rest),
    };
    let (place, options) = match rest.find(['?', '#']) {
        Some(at) => (&rest[..at], format!("{}{HIDDEN}", &rest[at..=at])),
        None => (rest, String::new()),
    };
    if user.is_empty() && options.is_empty() {
        return address.into();
    }
    format!("{scheme}{user}{place}{options}").into()
}

/// Accepts an address that holds no secret; for command lines.
///
/// # Errors
/// What to do instead.
pub fn refuse_secrets(address: &str) -> Result<String, &'static str> {
    match without_secrets(address) {
        Cow::Borrowed(_) => Ok(address.to_owned()),
        Cow::Owned(_) => Err(
            "an address holds no user, password or option: a token or a password is set apart from it, by its own file or variable",
        ),
    }
}

/// The error of a command line, without what may be a secret in the value that it quotes.
#[cfg(feature = "command-line")]
pub fn hide_in(mut error: clap::Error) -> clap::Error {
    use clap::error::{ContextKind, ContextValue};

    if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) {
        let shown = without_secrets(value).into_owned();
        error.insert(ContextKind::InvalidValue, ContextValue::String(shown));
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_may_be_a_secret_in_an_address_is_not_shown() {
        for (address, shown) in [
            ("redis://:hunter2@queue:6379/1", "redis://***@queue:6379/1"),
            ("https://anna:p@ss/w?rd#1@host:1", "https://***@host:1"),
            ("s3://bucket/prefix?secret=hunter2", "s3://bucket/prefix?***"),
            ("http://host/#hunter2", "http://host/#***"),
            ("anna:hunter2@host:7878", "***@host:7878"),
            ("redsi:hunter2@host?a", "***@host?***"),
            ("//:hunter2@", "//***@"),
        ] {
            assert_eq!(without_secrets(address), shown);
        }
        for harmless in ["", "redis://queue:6379/1", "file:///a/b", "127.0.0.1:7878", "nonsense", "30s"] {
            assert!(matches!(without_secrets(harmless), Cow::Borrowed(_)), "{harmless}");
        }
    }

    #[cfg(feature = "command-line")]
    #[test]
    fn the_error_of_a_command_line_quotes_no_secret_and_still_names_the_option() {
        let command = clap::Command::new("x").arg(clap::Arg::new("at").long("at").value_parser(refuse_secrets));
        let refused = command.try_get_matches_from(["x", "--at", "http://a:hunter2@b"]).expect_err("a password");
        let shown = hide_in(refused).to_string();
        assert!(shown.contains("http://***@b") && shown.contains("--at") && !shown.contains("hunter2"), "{shown}");
    }
}
