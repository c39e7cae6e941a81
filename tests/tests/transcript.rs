//! `docs/tour/`: the whole tour as a person sees it in terminals of several widths, and as a log keeps it. The jobs run once; what they
//! recorded is then shown in each terminal.
//!
//! `UPDATE_DOCS=1` writes the pages instead of comparing them. What differs from run to run is masked by as many letters: `N` for a digit,
//! `x` for a character of an id.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use regex::{Captures, Regex};
use serde_json::Value;
use sortinghat_tests::{Background, Screen, cache, photos};

/// The widths of the terminals, in columns.
const WIDTHS: [u16; 3] = [60, 80, 120];
/// The commands that submit a job and follow it. In a terminal, `hat jobs watch` then shows what the job has recorded.
const JOBS: [&str; 7] = [
    "ingest shapes photos",
    "finetune shapes@1",
    "finetune shapes@1 --epochs 6 --size 96 --batch-size 4",
    "evaluate shapes/2 --tta --report report.html",
    "audit shapes@1 --report labels.html",
    "classify shapes/1 holiday/0.png",
    "classify shapes/1 holiday --out predictions.csv",
];
/// The commands that tell what there is.
const LISTINGS: [&str; 10] = [
    "jobs",
    "jobs show",
    "jobs why",
    "queue",
    "datasets",
    "datasets show shapes@1",
    "models",
    "models show shapes/1",
    "models show shapes/2",
    "workers",
];

#[test]
fn the_pages_of_the_tour_show_what_the_commands_print() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    make_photos(folder.path());
    let (background, started) = Background::start(folder.path().join("data"), |hat| {
        hat.current_dir(folder.path()).env("SORTINGHAT_WEIGHTS_DIR", cache("weights"));
    });
    let tour = Tour { background, folder: folder.path().to_owned() };

    let mut log = told("up --background", &String::from_utf8_lossy(&[started.stdout, started.stderr].concat()));
    log.extend(JOBS.iter().chain(&LISTINGS).map(|line| told(line, &tour.piped(line))));
    let jobs = tour.jobs();
    let terminals = WIDTHS.map(|width| (format!("{width}-columns.txt"), tour.terminal(&jobs, width)));
    log += &told("down", &tour.piped("down"));

    let masks = Masks::new(&jobs, folder.path());
    for (page, text) in terminals.into_iter().chain([("log.txt".to_owned(), log)]) {
        compare(&page, &masks.apply(&text));
    }
}

/// A command and what it printed.
fn told(line: &str, output: &str) -> String {
    format!("$ hat {line}\n{}\n\n", output.trim_end())
}

/// A folder for each class, with a file that is no picture, and a folder of pictures without labels.
fn make_photos(folder: &Path) {
    photos::write_classes(&folder.join("photos"), 24, 96);
    fs::write(folder.join("photos/red/broken.jpg"), b"\xff\xd8\xff no more").expect("writable");
    photos::write_classes(&folder.join("new"), 2, 80);
    fs::create_dir(folder.join("holiday")).expect("writable");
    for (number, class) in photos::CLASSES.iter().enumerate() {
        fs::copy(folder.join("new").join(class).join("001.png"), folder.join(format!("holiday/{number}.png")))
            .expect("it was written");
    }
    fs::write(folder.join("holiday/notes.txt"), b"sunny").expect("writable");
}

/// A server, and a person with a folder of photos.
struct Tour {
    background: Background,
    folder: PathBuf,
}

impl Tour {
    fn hat(&self, line: &str) -> Command {
        let mut hat = self.background.hat();
        hat.args(line.split(' ')).current_dir(&self.folder);
        hat
    }

    /// What a command prints to a pipe: results and messages in the order in which they come.
    fn piped(&self, line: &str) -> String {
        let (mut reader, writer) = std::io::pipe().expect("the system has pipes");
        let mut hat = self.hat(line);
        hat.stdin(Stdio::null()).stdout(writer.try_clone().expect("a descriptor")).stderr(writer);
        let mut child = hat.spawn().expect("hat starts");
        // Only the child holds the pipe open from here on.
        drop(hat);
        let mut printed = String::new();
        reader.read_to_string(&mut printed).expect("text");
        let status = child.wait().expect("it is our child");
        assert!(status.success(), "hat {line}: {status}: {printed}");
        // Whether a job has to wait is a matter of moments.
        printed.lines().filter(|line| !line.starts_with("waiting")).map(|line| format!("{line}\n")).collect()
    }

    /// What the commands show in a terminal with so many columns.
    fn terminal(&self, jobs: &[String], width: u16) -> String {
        let watched = JOBS.iter().zip(jobs).map(|(line, id)| (*line, format!("jobs watch {id}")));
        let listed = LISTINGS.iter().map(|line| (*line, (*line).to_owned()));
        let shown = watched.chain(listed).map(|(shown, line)| {
            let screen = Screen::of(self.hat(&line), width);
            let lines = screen.lines.join("\n");
            assert!(screen.status.success(), "{width} columns: hat {line}\n{lines}");
            told(shown, &lines)
        });
        shown.collect()
    }

    /// The ids of the jobs, in the order in which they were submitted.
    fn jobs(&self) -> Vec<String> {
        let listed = self.piped("jobs --json");
        let id = |line: &str| {
            let job: Value = serde_json::from_str(line).expect("JSON");
            job["id"].as_str().expect("an id").to_owned()
        };
        let mut ids: Vec<String> = listed.lines().map(id).collect();
        ids.reverse();
        ids
    }
}

/// What hides all that differs from run to run.
struct Masks(Vec<(Regex, char)>);

impl Masks {
    fn new(jobs: &[String], folder: &Path) -> Self {
        let regex = |pattern: &str| Regex::new(pattern).expect("a valid pattern");
        let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("Linux has it");
        // A short id is the end of an id. The longest ends come first.
        let short = |id: &String| {
            let ends = (1..id.len() - 3).map(|from| regex(&format!(r"\b{}\b", &id[from..])));
            ends.collect::<Vec<_>>()
        };
        let mut masks: Vec<(Regex, char)> = jobs.iter().map(|id| (regex(id), 'x')).collect();
        masks.extend(jobs.iter().flat_map(short).map(|pattern| (pattern, 'x')));
        masks.push((regex(&regex::escape(&folder.display().to_string())), 'x'));
        masks.push((regex(&format!(r"\b{}\b", regex::escape(host.trim()))), 'x'));
        masks.push((regex(r"\b([0-9a-f]{64}|w[0-9a-f]{16})\b"), 'x'));
        for volatile in [
            r"127\.0\.0\.1:\d+",
            r"put \d+ photos? right and \d+ wrong",
            r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ",
            r"\b\d+(\.\d+)?e-?\d+\b",
            r"\b\d+\.\d+\b",
            r"\b\d+(\.\d+)?%",
            r"\b\d+(\.\d+)? ?(s|ms|min|h|KiB|MiB|GiB|threads|cores|photos/s)\b",
            r"\b\d+\s+(seconds?|minutes?)\b",
            r"process(es)? \d+( and \d+)?",
            r"\b\d+ of \d+\b",
        ] {
            masks.push((regex(volatile), 'N'));
        }
        Self(masks)
    }

    fn apply(&self, text: &str) -> String {
        let hide = |text: &str, letter: char| -> String {
            let masked = |character: char| match letter {
                'N' if !character.is_ascii_digit() => character,
                _ => letter,
            };
            text.chars().map(masked).collect()
        };
        let apply = |text: String, (pattern, letter): &(Regex, char)| {
            pattern.replace_all(&text, |found: &Captures<'_>| hide(&found[0], *letter)).into_owned()
        };
        self.0.iter().fold(text.to_owned(), apply)
    }
}

/// Compares a page with what was shown, word by word: how long a masked number is moves the words behind it.
fn compare(page: &str, shown: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/tour").join(page);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("the docs are writable");
        fs::write(&path, shown).expect("the docs are writable");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let [found, shown] = [&found, shown].map(words);
    if let Some(at) = found.iter().zip(&shown).position(|(found, shown)| found != shown) {
        let around = |words: &[String]| words[at.saturating_sub(12)..words.len().min(at + 12)].join(" ");
        panic!(
            "docs/tour/{page} has\n  {}\nbut hat shows\n  {}\nUPDATE_DOCS=1 writes the page anew",
            around(&found),
            around(&shown)
        );
    }
    assert_eq!(found.len(), shown.len(), "docs/tour/{page} ends early, or too late: UPDATE_DOCS=1 writes it anew");
}

/// The words of a text, with masks of any length as one letter, and durations of any unit and verdicts
/// as one word.
fn words(text: &str) -> Vec<String> {
    let shorten = |word: &str| {
        let mut short = String::new();
        for character in word.chars() {
            if !(matches!(character, 'N' | 'x') && short.ends_with(character)) {
                short.push(character);
            }
        }
        short
    };
    let regex = |pattern: &str| Regex::new(pattern).expect("a valid pattern");
    let text = regex(r"N+(\.N+)?\s+(s|ms|min|h|seconds?|minutes?)\b( N+ (s|min))?").replace_all(text, "[duration]");
    let text = regex(r"this\s+(may\s+well\s+be|is\s+hardly)\s+chance").replace_all(&text, "[verdict]");
    let behind = regex(r"N+\.N+\s+behind\s+the\s+best\s+\(standard\s+error\s+N+\.N+\)|the\s+best\n");
    let text = behind.replace_all(&text, "[verdict] ");
    let why = regex(r"taken:\s+it\s+(is\s+the\s+best|costs\s+less[\s\S]*?standard\s+error)");
    let text = why.replace_all(&text, "[verdict]");
    text.split_whitespace().map(shorten).collect()
}
