//! Ctrl-C, and what happens to a result that cannot be saved: `hat` runs as a process that the test watches and interrupts.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, ChildStderr, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{coordinator::Coordinator, hat::Hat};

/// A `hat` that runs, and what it says on standard error.
struct Running {
    child: Child,
    said: BufReader<ChildStderr>,
}

impl Running {
    fn start(hat: &Hat, line: &str) -> Self {
        let mut command = hat.command(line);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("hat starts");
        let said = BufReader::new(child.stderr.take().expect("it is piped"));
        Self { child, said }
    }

    /// Reads on until a line has these words, and returns it.
    fn says(&mut self, words: &str) -> String {
        let mut all = String::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.said.read_line(&mut line).expect("text"), 0, "{words:?} is not in\n{all}");
            if line.contains(words) {
                return line;
            }
            all += &line;
        }
    }

    fn interrupt(&self) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(pid), Signal::SIGINT).expect("it runs");
    }

    fn exit_code(mut self) -> Option<i32> {
        self.child.wait().expect("it was started").code()
    }
}

#[test]
fn ctrl_c_before_there_is_a_job_says_that_nothing_was_submitted() {
    let hat = Hat::at("http://127.0.0.1:1");
    hat.write_photos();
    for line in ["ingest stamps photos", "classify stamps/1 photos --json"] {
        let mut running = Running::start(&hat, line);
        running.says("waiting for the server");
        running.interrupt();
        let said = running.says("nothing was submitted");
        assert_eq!(said.contains("INTERRUPTED"), line.ends_with("--json"), "{said}");
        assert_eq!(running.exit_code(), Some(8), "{line}");
    }
}

#[test]
fn a_job_that_waits_says_why_and_after_ctrl_c_the_way_back_to_it_keeps_its_options() {
    let coordinator = Coordinator::start();
    let hat = Hat::at(&coordinator.url);
    hat.write_photos();
    hat.run("queue pause");
    let line = format!("ingest stamps photos --server {}", coordinator.url);
    let mut running = Running::start(&hat, &line);
    let said = running.says("its queue has been paused");
    let id = hat.newest_job();
    let resume = format!("`hat queue resume --server {}`", coordinator.url);
    assert!(said.starts_with("waiting: ") && said.contains(&resume), "{said}");
    running.interrupt();
    let said = running.says("detached");
    assert!(said.contains(&format!("`hat jobs watch {id} --server {}`", coordinator.url)), "{said}");
    assert_eq!(running.exit_code(), Some(130));
}

#[test]
fn a_result_that_cannot_be_saved_is_fetched_with_the_command_that_the_message_names() {
    let coordinator = Coordinator::start();
    coordinator.start_worker();
    let hat = Hat::at(&coordinator.url);
    hat.write_photos();
    for line in ["ingest stamps photos", "finetune stamps", "queue pause"] {
        assert!(hat.run(line).status.success(), "{line}");
    }
    fs::create_dir(hat.path().join("out")).expect("writable");
    let mut running = Running::start(&hat, "classify stamps/1 photos --out out/p.csv");
    running.says("its queue has been paused");
    let id = hat.newest_job();
    fs::remove_dir(hat.path().join("out")).expect("it is empty");
    hat.run("queue resume");
    running.says("out/p.csv");
    let way = running.says("fetches its result");
    assert!(way.contains(&format!("`hat jobs watch {id} --out FILE`")), "{way}");
    assert_eq!(running.exit_code(), Some(7));

    let fetched = hat.run(&format!("jobs watch {id} --out p.csv"));
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    assert!(fs::read_to_string(hat.path().join("p.csv")).expect("saved").starts_with("path,digest,predicted"));
}

#[test]
fn a_detached_job_keeps_the_file_for_its_result() {
    let coordinator = Coordinator::start();
    coordinator.start_worker();
    let hat = Hat::at(&coordinator.url);
    hat.write_photos();
    for line in ["ingest stamps photos", "finetune stamps", "queue pause"] {
        assert!(hat.run(line).status.success(), "{line}");
    }
    let detached = hat.run("classify stamps/1 photos --out p.csv --detach");
    let id = String::from_utf8(detached.stdout).expect("an id");
    let said = String::from_utf8(detached.stderr).expect("text");
    assert!(said.contains(&format!("`hat jobs watch {} --out p.csv`", id.trim())), "{said}");

    let mut running = Running::start(&hat, "evaluate stamps/1 --report r.html --force");
    running.says("its queue has been paused");
    running.interrupt();
    let said = running.says("detached");
    assert!(said.contains(&format!("`hat jobs watch {} --out r.html --force`", hat.newest_job())), "{said}");
}
