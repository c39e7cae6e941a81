//! Help and completions.

use crate::hat::Hat;

/// Every command and every command below one.
const COMMANDS: [&str; 29] = [
    "",
    "up",
    "down",
    "ingest",
    "finetune",
    "evaluate",
    "classify",
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
    "doctor",
];

/// The options of every command are shown once, with the first.
const FOR_EVERY_COMMAND: &str = "\nFor every command:\n";

#[test]
fn every_command_has_help() {
    let hat = Hat::at("http://127.0.0.1:1");
    let of = |command: &str| hat.transcript(&[format!("{command} --help").trim_start()]);
    let all: Vec<String> = COMMANDS
        .iter()
        .map(|command| match of(command).split_once(FOR_EVERY_COMMAND) {
            Some((own, _)) if !command.is_empty() => own.to_owned(),
            _ => of(command),
        })
        .collect();
    hat.assert_snapshot("help", &all.join("\n"));
    hat.assert_snapshot("version", &hat.transcript(&["--version", "help nothing"]));
}

#[test]
fn every_shell_gets_completions() {
    let hat = Hat::at("http://127.0.0.1:1");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = hat.run(&format!("completions {shell}"));
        let script = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success() && output.stderr.is_empty(), "{shell}");
        for word in ["hat", "finetune", "backbone"] {
            assert!(script.contains(word), "{shell}: {word:?} is not in\n{script}");
        }
    }
    hat.assert_snapshot("completions", &hat.transcript(&["completions tcsh"]));
}
