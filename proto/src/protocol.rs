//! The number by which a caller and a server find out whether they understand each other. `docs/versions.md` states the policy.

use crate::{Refusal, v1::ErrorCode, words};

/// The contract that this build speaks. The number grows with a change that a peer with the number before would misunderstand; additive
/// changes leave it as it is.
pub const PROTOCOL: u32 = 1;

/// The same in text.
pub const PROTOCOL_TEXT: &str = "1";

/// The oldest contract that this build serves.
pub const OLDEST_PROTOCOL: u32 = 1;

/// The metadata in which every call says which contract its caller speaks.
pub const PROTOCOL_KEY: &str = "sortinghat-protocol";

/// What a caller speaks that does not say it.
const UNDECLARED: u32 = 1;

/// Refuses a caller that this build would misunderstand, or that would misunderstand this build. `declared` is what the caller says that it
/// speaks.
///
/// # Errors
/// A refusal of one sentence, which says which of the two has to be updated.
pub fn check(declared: Option<&str>) -> Result<(), Refusal> {
    let spoken = match declared {
        None => UNDECLARED,
        Some(text) => text.parse().map_err(|_| {
            let message = format!(
                "{PROTOCOL_KEY} is {}, which is not a number: leave it out or send {PROTOCOL}",
                words::quoted(text)
            );
            Refusal::invalid(PROTOCOL_KEY, message)
        })?,
    };
    let message = match spoken {
        ..OLDEST_PROTOCOL => format!(
            "this program is too old for the server: it speaks protocol {spoken}, and the server {OLDEST_PROTOCOL} to {PROTOCOL}; replace it \
             by the server's version"
        ),
        OLDEST_PROTOCOL..=PROTOCOL => return Ok(()),
        _ => format!(
            "the server is too old for this program: it speaks protocol {OLDEST_PROTOCOL} to {PROTOCOL}, and the program {spoken}; update the \
             server first, or use the program of its version"
        ),
    };
    Err(Refusal::new(ErrorCode::VersionUnsupported, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_served_from_the_oldest_contract_to_ours_and_else_told_who_must_be_updated() {
        for served in [None, Some(OLDEST_PROTOCOL), Some(PROTOCOL)] {
            check(served.map(|number| number.to_string()).as_deref()).expect("it is served");
        }
        assert_eq!(PROTOCOL_TEXT, PROTOCOL.to_string());
        let refused = |number: u32| check(Some(&number.to_string())).expect_err("it is not served");
        let (older, newer) = (refused(OLDEST_PROTOCOL - 1), refused(PROTOCOL + 1));
        assert_eq!([older.code, newer.code], [ErrorCode::VersionUnsupported; 2]);
        assert!(older.message.starts_with("this program is too old") && older.message.contains("replace it"));
        assert!(newer.message.starts_with("the server is too old") && newer.message.contains("update the server"));
        assert_eq!(check(Some("new")).expect_err("no number").field, PROTOCOL_KEY);
    }
}
