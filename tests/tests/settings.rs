//! The pages that describe what programs print: `docs/settings.md` is made of each program's `--help`,
//! `docs/troubleshooting.md` has a row for each error code, and `docs/api.md` has codes and limits as the contract has them.
//!
//! `UPDATE_DOCS=1` writes the page of settings instead of comparing it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sortinghat_proto::{Refusal, limits, v1::ErrorCode, words::count};
use sortinghat_tests::binary;
use tonic::{Code, Status};

/// What stands before the tables.
const INTRODUCTION: &str = "\
# Settings

This page is generated from the programs' own `--help`. A test compares it with them; to update it, run
`UPDATE_DOCS=1 cargo nextest run -p sortinghat-tests --test settings`.

A flag overrides the environment variable beside it. The coordinator also reads a TOML file (`--config`), which flags and
variables override: its keys are the flags with underscores, such as `lease_ttl = \"30s\"`.
Durations have units (`500ms`, `30s`, `2m`, `1day`), and so have sizes (`500MiB`, `20GiB`).

Where a token file is not at hand, `SORTINGHAT_TOKEN` holds the token itself (`hat` and worker). Region, endpoint and
credentials of an S3 bucket come from the usual `AWS_*` variables and from `~/.aws` (coordinator and worker). `RUST_LOG` says which log lines the
worker writes; `HF_ENDPOINT` and `HF_TOKEN` say where and as whom it fetches weights, those that a job names only with `--share-hub-token`. `NO_COLOR` turns off `hat`'s colours.
";

/// The programs whose settings the page lists: a title, the program, and the command whose help is read.
const PROGRAMS: [(&str, &str, &[&str]); 3] = [
    ("The coordinator: `sortinghat-coordinator`", "sortinghat-coordinator", &["--help"]),
    ("A worker: `sortinghat-worker run`", "sortinghat-worker", &["run", "--help"]),
    ("The command line: `hat`, for every command", "hat", &["--help"]),
];

#[test]
fn the_page_of_settings_says_what_the_programs_say() {
    let tables = PROGRAMS.map(|(title, program, arguments)| format!("\n## {title}\n\n{}", table(program, arguments)));
    let expected = format!("{INTRODUCTION}{}", tables.concat());
    let page = docs("settings.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&page, &expected).expect("the docs are writable");
    }
    let found = fs::read_to_string(&page).unwrap_or_default();
    let advice = "docs/settings.md is out of date: UPDATE_DOCS=1 cargo nextest run -p sortinghat-tests --test settings";
    assert_eq!(found, expected, "{advice}");
}

#[test]
fn the_page_of_troubleshooting_has_a_row_for_each_error_code() {
    let page = fs::read_to_string(docs("troubleshooting.md")).expect("the page exists");
    for code in (0..).map_while(|number| ErrorCode::try_from(number).ok()) {
        let word = code.word();
        assert!(page.contains(&format!("\n| `{word}` |")), "docs/troubleshooting.md does not explain {word}");
    }
}

#[test]
fn the_page_of_the_api_has_each_error_code_with_its_grpc_code() {
    let page = fs::read_to_string(docs("api.md")).expect("the page exists");
    for code in (1..).map_while(|number| ErrorCode::try_from(number).ok()) {
        let grpc = Status::from(Refusal::new(code, "no")).code();
        let row = format!("\n| `{}` | `{}` |", code.word(), grpc_word(grpc));
        assert!(page.contains(&row), "docs/api.md lacks the row {row}");
    }
}

/// `FailedPrecondition` as `FAILED_PRECONDITION`.
fn grpc_word(code: Code) -> String {
    let mut word = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !word.is_empty() {
            word.push('_');
        }
        word.push(letter.to_ascii_uppercase());
    }
    word
}

#[test]
fn the_page_of_the_api_has_the_limits_of_the_contract() {
    let bytes = |bytes: u64| match bytes {
        bytes if bytes >= 1 << 30 => format!("{} GiB", bytes >> 30),
        bytes if bytes >= 1 << 20 => format!("{} MiB", bytes >> 20),
        bytes => bytes.to_string(),
    };
    let many = |number: usize| if number < 10_000 { number.to_string() } else { count(number as u64) };
    let limits = [
        ("bytes of a message", bytes(limits::MAX_MESSAGE_BYTES as u64)),
        ("bytes of a piece of an upload or a download", bytes(limits::MAX_PIECE_BYTES as u64)),
        ("bytes of an uploaded object", bytes(limits::MAX_OBJECT_BYTES)),
        ("bytes of an upload manifest", bytes(limits::MAX_MANIFEST_BYTES)),
        ("files in an upload manifest", many(limits::MAX_UPLOAD_FILES)),
        ("bytes of a path in an upload manifest", many(limits::MAX_PATH_BYTES)),
        ("bytes of a photo", bytes(limits::MAX_PHOTO_BYTES)),
        ("pixels of a photo", count(limits::MAX_PHOTO_PIXELS)),
        ("digests in one `FindMissingObjects`", many(limits::MAX_DIGESTS_PER_CALL)),
        (
            "objects in one `UploadObjects`, and their bytes in all",
            format!("{}, {}", many(limits::MAX_PACKED_OBJECTS), bytes(limits::MAX_PACK_BYTES)),
        ),
        ("parts in one `JoinObjects`", many(limits::MAX_PARTS)),
        ("jobs in one `SubmitJobs`", many(limits::MAX_JOBS_PER_CALL)),
        ("entries of a page", many(limits::MAX_PAGE_SIZE as usize)),
        ("parents of a job", many(limits::MAX_PARENTS)),
        ("characters of a name", many(limits::MAX_NAME_BYTES)),
        ("characters of an idempotency key", many(limits::MAX_IDEMPOTENCY_KEY_BYTES)),
        ("labels of a job", many(limits::MAX_JOB_LABELS)),
        ("characters of a label's name, and of its value", many(limits::MAX_LABEL_BYTES)),
        ("digests in one `DeleteObjects`", many(limits::MAX_DIGESTS_PER_CALL)),
        ("classes of a dataset", many(limits::MAX_CLASSES)),
        ("distance of a priority from 0", many(limits::MAX_PRIORITY.unsigned_abs() as usize)),
    ];
    let rows: String = limits.iter().map(|(what, most)| format!("| {what} | {most} |\n")).collect();
    let page = fs::read_to_string(docs("api.md")).expect("the page exists");
    assert!(
        page.contains(&format!("| what | at most |\n|---|---|\n{rows}\n")),
        "docs/api.md needs these rows:\n{rows}"
    );
    let looked_for = count(limits::MAX_FILES_LOOKED_FOR as u64);
    assert!(page.contains(&format!("more than {looked_for} files, {looked_for} are")), "{looked_for} are looked for");
}

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

/// The settings of a program as a table.
fn table(program: &str, arguments: &[&str]) -> String {
    let help = help(program, arguments);
    let rows = settings(&help).into_iter().map(|setting| setting.row());
    let head = "| flag | variable | default | what it sets |\n|---|---|---|---|\n".to_owned();
    std::iter::once(head).chain(rows).collect()
}

/// What a program says of itself, whatever this test's environment sets.
fn help(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(binary(program));
    for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SORTINGHAT_")) {
        command.env_remove(variable);
    }
    let output = command.args(arguments).env("COLUMNS", "120").output().expect("the program starts");
    String::from_utf8(output.stdout).expect("help is UTF-8")
}

/// One setting, as the help tells it.
struct Setting {
    /// `--listen <ADDRESS>`.
    flag: String,
    /// What stands after the flag, in one line.
    text: String,
}

/// The settings that a help lists. A flag begins a line that is indented a little; what it says stands beside it or below it, deeper.
fn settings(help: &str) -> Vec<Setting> {
    let mut settings: Vec<Setting> = Vec::new();
    let mut is_open = false;
    for line in help.lines() {
        let (indent, words) = (line.len() - line.trim_start().len(), line.trim());
        if (2..=6).contains(&indent) && words.starts_with('-') {
            let (flag, text) = words.split_once("  ").unwrap_or((words, ""));
            settings.push(Setting { flag: flag.to_owned(), text: text.trim().to_owned() });
            is_open = true;
        } else if indent > 6 && is_open {
            let text = &mut settings.last_mut().expect("one is open").text;
            match words.strip_prefix("- ") {
                Some(value) => *text = format!("{text}; {value}"),
                None if words == "Possible values:" => {}
                None => *text = format!("{text} {words}").trim().to_owned(),
            }
        } else if !words.is_empty() {
            is_open = false;
        }
    }
    settings.retain(|setting| !setting.flag.ends_with("--help") && !setting.flag.ends_with("--version"));
    settings
}

impl Setting {
    fn row(mut self) -> String {
        let variable = self.take("[env: ").map(|found| found.trim_end_matches('=').to_owned());
        let default = self.take("[default: ");
        let code = |text: Option<String>| text.map(|text| format!("`{text}`")).unwrap_or_default();
        let cells = [code(Some(self.flag)), code(variable), default.unwrap_or_default(), self.text];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        format!("| {} |\n", cells.join(" | "))
    }

    /// What stands in brackets after `label`, taken out of the text.
    fn take(&mut self, label: &str) -> Option<String> {
        let (before, rest) = self.text.split_once(label)?;
        let (found, after) = rest.split_once(']')?;
        let found = found.to_owned();
        let separator = if after.starts_with(';') { "" } else { " " };
        self.text = format!("{}{separator}{}", before.trim_end(), after.trim_start()).trim().to_owned();
        Some(found)
    }
}
