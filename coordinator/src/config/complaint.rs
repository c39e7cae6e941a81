//! What is wrong with a TOML file, without what the file says: a secret may stand in a place that is not meant for one.

use std::fmt;

use serde::Deserialize;
use sortinghat_proto::words;

/// What stands for a text of the file.
const HIDDEN: &str = "***";

/// Why a TOML file is refused: the line, the key and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    line: usize,
    reason: String,
}

impl Complaint {
    /// What a parser says of `text`.
    pub fn of(error: &toml::de::Error, text: &str) -> Self {
        let span = error.span().unwrap_or_default();
        let line = 1 + text.get(..span.start).unwrap_or_default().matches('\n').count();
        Self { line, reason: without(error.message(), text.get(span).unwrap_or_default()) }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for Complaint {}

/// A parser's message without the text that stands at its place in the file, `written`. The name of a key stays.
fn without(message: &str, written: &str) -> String {
    #[derive(Deserialize)]
    struct Value {
        value: String,
    }
    let Ok(Value { value }) = toml::from_str(&format!("value = {written}")) else { return message.to_owned() };
    let quoted = [format!("{value:?}"), format!("`{value}`"), words::quoted(&value)];
    quoted.iter().fold(message.to_owned(), |message, quoted| message.replace(quoted, HIDDEN))
}

#[cfg(test)]
mod tests {
    use sortinghat_proto::Digest;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        #[expect(dead_code, reason = "what matters is what is refused")]
        count: u32,
        #[expect(dead_code, reason = "what matters is what is refused")]
        role: Role,
        #[expect(dead_code, reason = "what matters is what is refused")]
        hash: Option<Digest>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Role {
        User,
    }

    fn complaint(text: &str) -> String {
        Complaint::of(&toml::from_str::<File>(text).expect_err(text), text).to_string()
    }

    #[test]
    fn a_secret_in_the_wrong_place_is_not_quoted_and_the_line_and_the_key_are() {
        for (text, says) in [
            ("role = 'user'\ncount = 'hunter2'", "line 2: invalid type: string ***, expected u32"),
            ("count = 1\nrole = 'hunter2'", "line 2: unknown variant ***, expected `user`"),
            (
                "count = 1\nrole = 'user'\ntoken = 'hunter2'",
                "line 3: unknown field `token`, expected one of `count`, `role`, `hash`",
            ),
            (
                "hash = 'hunter2 hunter2 hunter2 hunter2 hunter2 hunter2 hunter2 hunter2 hunter2 hunter2'",
                "line 1: *** ",
            ),
            ("count = ['hunter2', \"a \\\"hunter2\"]\nrole = 'user'", "line 1: "),
            ("count = 1\nrole = hunter2", "line 2: "),
            ("count = 1\nhunter2", "line 2: "),
            ("count = 'hunter2\nrole = 'user'", "line 1: "),
        ] {
            let complaint = complaint(text);
            assert!(complaint.starts_with(says) && !complaint.contains("hunter2"), "{complaint}");
        }
    }
}
