//! Help and completions.

use sortinghat_proto::JobKind;

use crate::hat::Hat;

/// The commands that submit no jobs, and every command below one.
const OTHERS: [&str; 24] = [
    "sort",
    "jobs",
    "jobs list",
    "jobs show",
    "jobs why",
    "jobs watch",
    "jobs logs",
    "jobs cancel",
    "jobs retry",
    "queue",
    "queue show",
    "queue pause",
    "queue resume",
    "datasets",
    "datasets list",
    "datasets show",
    "datasets rm",
    "models",
    "models list",
    "models show",
    "models rm",
    "workers",
    "whoami",
    "doctor",
];

/// Every command, in the order of the help. The first is `hat` itself.
fn commands() -> impl Iterator<Item = &'static str> {
    let kinds = JobKind::ALL.iter().map(|kind| kind.as_str());
    ["", "up", "down"].into_iter().chain(kinds).chain(OTHERS)
}

#[test]
fn every_command_has_help() {
    let hat = Hat::at("http://127.0.0.1:1");
    let of = |command: &str| hat.transcript(&[format!("{command} --help").trim_start()]);
    hat.assert_snapshot("help", &commands().map(of).collect::<Vec<_>>().join("\n"));
    hat.assert_snapshot("version", &hat.transcript(&["--version", "help nothing"]));
}

#[test]
fn the_short_help_is_short_and_says_where_the_rest_is() {
    let hat = Hat::at("http://127.0.0.1:1");
    hat.assert_snapshot("short_help", &hat.transcript(&["-h", "finetune -h", "jobs why -h"]));
}

#[test]
fn every_shell_gets_completions() {
    let hat = Hat::at("http://127.0.0.1:1");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = hat.run(&format!("completions {shell}"));
        let script = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success() && output.stderr.is_empty(), "{shell}");
        let asks = if shell == "powershell" { "COMPLETE" } else { "COMPLETE=" };
        assert!(script.contains("hat") && script.contains(asks), "{shell}:\n{script}");
    }
    hat.assert_snapshot("completions", &hat.transcript(&["completions tcsh"]));
}
