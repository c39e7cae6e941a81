//! `hat` in terminals of several widths, as it does before a person.

use sortinghat_tests::Screen;

use crate::{coordinator::Coordinator, hat::Hat};

/// Runs a command line in a terminal with so many columns.
fn run(hat: &Hat, line: &str, columns: u16, variables: &[(&str, &str)]) -> Screen {
    let mut command = hat.command(line);
    command.envs(variables.iter().copied());
    let screen = Screen::of(command, columns);
    assert!(screen.status.success(), "hat {line}: {}", String::from_utf8_lossy(&screen.bytes));
    screen
}

/// A server on which one job of each kind has ended and one waits, with a long name.
fn deployment() -> (Coordinator, Hat) {
    let coordinator = Coordinator::start();
    coordinator.start_worker();
    let hat = Hat::at(&coordinator.url);
    hat.write_photos();
    for line in [
        "ingest stamps-of-the-whole-world-in-many-colours photos",
        "finetune stamps-of-the-whole-world-in-many-colours --name stamps",
        "evaluate stamps --report report.html",
        "classify stamps photos --out predictions.csv",
        "queue pause",
        "ingest stamps photos --detach",
    ] {
        assert!(hat.run(line).status.success(), "{line}");
    }
    (coordinator, hat)
}

#[test]
fn what_is_listed_fits_terminals_of_any_width_and_no_name_is_broken_by_the_terminal() {
    let (_coordinator, hat) = deployment();
    for width in [60, 80, 120] {
        for line in ["jobs", "jobs show", "datasets", "models", "models show stamps", "workers"] {
            // Hints may hold a command, which must stay whole.
            let screen = run(&hat, &format!("{line} --quiet"), width, &[]);
            assert!(!screen.has_broken_lines(), "{width} columns: hat {line}\n{}", screen.lines.join("\n"));
        }
        let jobs = run(&hat, "jobs", width, &[]).lines.join("\n");
        let is_whole = jobs.contains("stamps-of-the-whole-world-in-many-colours ");
        assert!(is_whole || jobs.contains('…'), "{width} columns:\n{jobs}");
    }
}

#[test]
fn states_have_colours_on_a_terminal_unless_somebody_wants_none() {
    let (_coordinator, hat) = deployment();
    let green = |screen: Screen| String::from_utf8_lossy(&screen.bytes).contains("\u{1b}[32msucceeded");
    assert!(green(run(&hat, "jobs", 120, &[])));
    assert!(!green(run(&hat, "jobs --no-color", 120, &[])));
    assert!(!green(run(&hat, "jobs", 120, &[("NO_COLOR", "1")])));
    assert!(!String::from_utf8_lossy(&hat.run("jobs").stdout).contains('\u{1b}'), "a pipe has no colours");
}

#[test]
fn a_job_that_is_followed_on_a_terminal_leaves_its_result_and_no_bar() {
    let coordinator = Coordinator::start();
    coordinator.start_worker();
    let hat = Hat::at(&coordinator.url);
    hat.write_photos();
    run(&hat, "ingest stamps photos", 80, &[]);
    let lines = run(&hat, "finetune stamps", 80, &[]).lines;
    assert!(lines[0].starts_with("job ") && lines[0].ends_with(": finetune of stamps@1"), "{lines:?}");
    assert!(lines.iter().any(|line| line == "epoch     trn_loss  val_loss  accuracy  time"), "{lines:?}");
    let text = lines.join("\n");
    assert!(!text.contains("state: ") && !text.contains("[=") && !text.contains("0 bytes"), "{text}");
}
