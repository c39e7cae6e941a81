//! The coordinator as a process.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sortinghat_proto::v1::{GetJobRequest, JobState};

use crate::harness::{client, page};

/// A coordinator process that ends with the test.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

fn command(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sortinghat-coordinator"));
    command.env_clear().arg("--data-dir").arg(data_dir).args(["--listen", "127.0.0.1:0", "--log-format", "json"]);
    command.stdin(Stdio::null());
    command
}

impl Process {
    /// Starts a coordinator and waits for the log line with its address.
    fn start(data_dir: &Path) -> Self {
        let mut child = command(data_dir).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let address = loop {
            let line = lines.next().expect("it logs its address before it ends").expect("text");
            let line: serde_json::Value = serde_json::from_str(&line).expect("one JSON object a line");
            if line["fields"]["message"] == "serving" {
                break line["fields"]["address"].as_str().expect("text").parse().expect("an address");
            }
        };
        // The later lines are read and dropped, so that the pipe does not fill up.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    /// Starts a coordinator whose log lines go into a file, and waits until it has written its address.
    pub(crate) async fn start_logging_to(log: &Path, data_dir: &Path) -> Self {
        Self::start_with(log, data_dir, |_| {}).await
    }

    /// The same with further options.
    async fn start_with(log: &Path, data_dir: &Path, configure: impl FnOnce(&mut Command)) -> Self {
        let log = std::fs::File::create(log).expect("the log can be written");
        let mut command = command(data_dir);
        configure(&mut command);
        let child = command.stderr(log).spawn().expect("the binary starts");
        let mut process = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        while process.address.port() == 0 {
            assert!(process.is_running(), "it ends before it writes its address");
            tokio::time::sleep(Duration::from_millis(10)).await;
            let text = std::fs::read_to_string(data_dir.join("coordinator.addr")).unwrap_or_default();
            process.address = text.trim().parse().unwrap_or(process.address);
        }
        process
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_none()
    }

    fn send(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("process ids fit in 32 bits");
        kill(Pid::from_raw(pid), signal).expect("the process is ours");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ends(command: &mut Command) -> (Output, String) {
    let output = command.output().expect("the binary starts");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, stderr)
}

#[tokio::test]
async fn an_acknowledged_job_survives_kill_9() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut first = Process::start(folder.path());
    let job_id = client(first.address, None).await.submit_ingest("stamps").await;
    first.send(Signal::SIGKILL);
    first.child.wait().expect("it ends");

    let second = Process::start(folder.path());
    let mut client = client(second.address, None).await;
    let job = client.jobs.get_job(GetJobRequest { job_id }).await.expect("it was acknowledged").into_inner().job;
    assert_eq!(job.expect("a job").state(), JobState::Queued);
}

#[test]
fn after_sigterm_it_exits_with_success_and_leaves_no_stale_address() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let address_file = folder.path().join("coordinator.addr");
    let mut process = Process::start(folder.path());
    let published = std::fs::read_to_string(&address_file).expect("written before it serves");
    assert_eq!(published.trim(), process.address.to_string());
    process.send(Signal::SIGTERM);
    assert!(process.child.wait().expect("it ends").success());
    assert!(!address_file.exists());
}

#[test]
fn two_coordinators_cannot_share_a_data_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = Process::start(folder.path());
    let (output, stderr) = ends(&mut command(folder.path()));
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr.contains(&format!("another coordinator (process {})", first.child.id())), "{stderr}");
}

#[test]
fn an_address_that_other_machines_can_reach_is_refused_with_the_flags_to_set() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut exposed = Command::new(env!("CARGO_BIN_EXE_sortinghat-coordinator"));
    exposed.env_clear().env("SORTINGHAT_LISTEN", "0.0.0.0:0").arg("--data-dir").arg(folder.path());
    let (output, stderr) = ends(&mut exposed);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr.contains("set --tls-cert, --tls-key and --credentials"), "{stderr}");
}

#[test]
fn the_dumped_configuration_has_the_value_of_the_flag_before_the_variable_before_the_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("coordinator.toml");
    std::fs::write(&file, "lease_ttl = '7s'\ndrain_grace = '7s'\nlisten = '127.0.0.1:7'\n").expect("writable");
    let mut dump = command(folder.path());
    dump.arg("--config").arg(&file).arg("--dump-config").env("SORTINGHAT_LISTEN", "127.0.0.1:8");
    let (output, stderr) = ends(dump.env("SORTINGHAT_LEASE_TTL", "8s"));
    assert!(output.status.success(), "{stderr}");
    let text = String::from_utf8(output.stdout).expect("text");
    let dumped: toml::Table = text.parse().expect("a configuration file");
    let value = |key: &str| dumped[key].as_str().expect("text").to_owned();
    assert_eq!([value("drain_grace"), value("lease_ttl"), value("listen")], ["7s", "8s", "127.0.0.1:0"]);
}

#[tokio::test]
async fn only_its_own_user_may_read_what_the_coordinator_writes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let process = Process::start(folder.path());
    client(process.address, None).await.submit_ingest("stamps").await;
    let mut folders = vec![folder.path().to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("it is ours") {
            let entry = entry.expect("it is ours");
            let metadata = entry.metadata().expect("it is ours");
            assert_eq!(metadata.mode() & 0o077, 0, "{}", entry.path().display());
            match metadata.is_dir() {
                true => folders.push(entry.path()),
                false => files += 1,
            }
        }
    }
    assert!(files >= 3, "a queue, an object and an address: {files}");
}

#[tokio::test]
async fn a_flood_of_refused_calls_does_not_flood_the_log() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tokens = folder.path().join("tokens.toml");
    let sha256 = sortinghat_proto::Digest::of(b"a token");
    let line = format!("[[tokens]]\nsha256 = '{sha256}'\ntenant = 'a'\nrole = 'user'\n");
    std::fs::write(&tokens, line).expect("writable");
    let (log, data_dir) = (folder.path().join("log"), folder.path().join("data"));
    let with_tokens = |command: &mut Command| _ = command.arg("--credentials").arg(&tokens);
    let process = Process::start_with(&log, &data_dir, with_tokens).await;
    let mut stranger = client(process.address, Some("another token".to_owned())).await;
    for _ in 0..500 {
        stranger.jobs.get_job(GetJobRequest::default()).await.expect_err("it is not known");
    }
    let lines = std::fs::read_to_string(&log).expect("it logs").lines().filter(|line| line.contains("refused")).count();
    // On a slow machine, the calls may take longer than one line is kept back.
    assert!((1..50).contains(&lines), "{lines} lines");
}

/// Asks a page until it has this status.
async fn until_page_is(pages: SocketAddr, path: &str, status: &str) {
    let asked = async {
        while !page(pages, path).await.starts_with(&format!("HTTP/1.0 {status}")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asked).await.unwrap_or_else(|_| panic!("{path} never is {status}"));
}

#[tokio::test]
async fn a_coordinator_that_is_told_to_stop_is_not_ready_and_still_accepts_calls_for_the_delay() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let pages = free.local_addr().expect("it listens");
    drop(free);
    let mut process = Process::start_with(&folder.path().join("log"), &folder.path().join("data"), |command| {
        command.args(["--drain-delay", "3s", "--metrics-listen", &pages.to_string()]);
    })
    .await;
    for path in ["/livez", "/readyz", "/startupz"] {
        until_page_is(pages, path, "200").await;
    }
    process.send(Signal::SIGTERM);
    until_page_is(pages, "/readyz", "503").await;
    for path in ["/livez", "/startupz"] {
        until_page_is(pages, path, "200").await;
    }
    let job_id = client(process.address, None).await.submit_ingest("stamps").await;
    assert!(!job_id.is_empty(), "a new connection is accepted, and its job is acknowledged");
    assert!(process.child.wait().expect("it ends").success());
}
