//! Whose tasks may gather from the web, and how.

use sortinghat_link::is_loopback;

use super::SessionError;
use crate::{
    broker::WebOptions,
    config::RunArgs,
    fetch::{FetchOptions, Rights},
};

/// What the operator says, or else: everybody may who can use a coordinator without tokens on this machine, since they can fetch by
/// themselves as well; and nobody anywhere else.
#[expect(clippy::result_large_err, reason = "it is made once, before the worker starts")]
pub(super) fn options(args: &RunArgs, has_token: bool) -> Result<WebOptions, SessionError> {
    let gathering = &args.gathering;
    let shows_nothing = !has_token && args.token_file.is_none() && args.client_cert.is_none();
    let is_private = shows_nothing && is_loopback(&args.coordinator);
    let usual = if is_private { Rights::Everybody } else { Rights::Nobody };
    let rights = gathering.gather.clone().unwrap_or(usual);
    let allowance = gathering.fetch_loopback.clone().unwrap_or_default();
    if !allowance.is_empty() {
        if !is_private {
            return Err(SessionError::OnlyForTests);
        }
        tracing::warn!("photos are fetched from this machine as well, which only tests should ask for");
    }
    tracing::info!(%rights, "who may gather photos from the web");
    let contact = gathering.gather_contact.clone().unwrap_or_default();
    let providers_dir = gathering.providers_dir.clone().unwrap_or_else(|| args.storage.data_dir().join("providers"));
    Ok(WebOptions { rights, fetch: FetchOptions { contact, allowance }, providers_dir })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::config::{Command, CommandLine};

    #[expect(clippy::result_large_err, reason = "as above")]
    fn rights(arguments: &[&str], has_token: bool) -> Result<Rights, SessionError> {
        let line = ["sortinghat-worker", "run"].iter().chain(arguments);
        match CommandLine::try_parse_from(line).unwrap().command {
            Command::Run(args) => options(&args, has_token).map(|options| options.rights),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nobody_gathers_beyond_one_machine_without_tokens_unless_the_operator_says_who() {
        let lab = Rights::Tenants(vec!["lab".parse().unwrap()]);
        for (arguments, has_token, expected) in [
            (&["--coordinator", "http://127.0.0.1:1"][..], false, Rights::Everybody),
            (&["--coordinator", "http://[::1]:1"], false, Rights::Everybody),
            (&["--coordinator", "http://127.0.0.1:1"], true, Rights::Nobody),
            (&["--coordinator", "http://127.0.0.1:1", "--token-file", "t"], false, Rights::Nobody),
            (&["--coordinator", "https://queue.example.org"], false, Rights::Nobody),
            (&["--coordinator", "https://queue.example.org", "--gather", "lab"], true, lab),
            (&["--gather", "nobody"], false, Rights::Nobody),
        ] {
            assert_eq!(rights(arguments, has_token).unwrap(), expected, "{arguments:?} {has_token}");
        }
    }

    #[test]
    fn what_only_tests_may_ask_for_keeps_any_other_worker_from_starting() {
        let asked = ["--fetch-loopback", "127.0.0.1:80", "--coordinator"];
        rights(&[&asked[..], &["http://127.0.0.1:1"]].concat(), false).unwrap();
        for (coordinator, has_token) in [("http://127.0.0.1:1", true), ("https://queue.example.org", false)] {
            let error = rights(&[&asked[..], &[coordinator]].concat(), has_token).unwrap_err();
            assert!(matches!(error, SessionError::OnlyForTests), "{error}");
        }
    }
}
