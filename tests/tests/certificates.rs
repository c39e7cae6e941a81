//! A worker that shows a certificate, as processes: `hat` says who it is, and what both ends trust is replaced while it works.

use std::{fs, path::Path, process::Command, time::Duration};

use sortinghat_proto::Digest;
use sortinghat_tests::{
    Process, binary,
    certificates::{Authority, now, replace},
    photos, start_coordinator, wait_until,
};
use tempfile::TempDir;

const GPU_1: &str = "spiffe://lab/gpu-1";

struct Machines {
    // The processes come first, as they must end before the folder that they write into.
    _worker: Process,
    _coordinator: Process,
    url: String,
    folder: TempDir,
}

impl Machines {
    /// A coordinator, and a worker that shows a certificate, which trust each other by what this authority has made.
    fn start(authority: &Authority) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        let user = Digest::of(b"secret");
        let tokens = format!(
            "[[tokens]]\nid = 'anna'\nsha256 = '{user}'\nrole = 'user'\ntenant = 'lab'\n\n\
             [[certificates]]\nid = 'gpu-1'\nsan = '{GPU_1}'\nrole = 'worker'\ntenants = ['lab']\n"
        );
        replace(&path("tokens.toml"), &tokens);
        replace(&path("token"), "secret\n");
        replace(&path("ca.pem"), &authority.pem());
        authority.server().write(folder.path(), "server");
        authority.worker(&[GPU_1]).write(folder.path(), "gpu-1");
        let objects = format!("file://{}", path("objects").display());
        let any = "127.0.0.1:0".parse().expect("an address");
        let (coordinator, address) = start_coordinator(&path("data"), any, &path("coordinator.log"), |command| {
            command.args(["--object-store", &objects, "--credentials"]).arg(path("tokens.toml"));
            command.arg("--tls-cert").arg(path("server.pem")).arg("--tls-key").arg(path("server.key"));
            command.arg("--client-ca").arg(path("ca.pem"));
        });
        let url = format!("https://{address}");
        let mut command = Command::new(binary("sortinghat-worker"));
        command.args(["run", "--device", "cpu", "--threads", "1", "--coordinator", &url, "--object-store", &objects]);
        command.arg("--data-dir").arg(path("worker")).arg("--ca-file").arg(path("ca.pem"));
        command.arg("--client-cert").arg(path("gpu-1.pem")).arg("--client-key").arg(path("gpu-1.key"));
        let worker = Process::start(&mut command, &path("worker.log"));
        Self { _worker: worker, _coordinator: coordinator, url, folder }
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs `hat` with these arguments; returns its exit code and all that it says.
    fn hat(&self, line: &str) -> (i32, String) {
        let mut command = Command::new(binary("hat"));
        command.args(["--server", &self.url, "--ca-file", "ca.pem"]).args(line.split(' ')).current_dir(self.folder());
        let output = command.env("NO_COLOR", "1").output().expect("hat starts");
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        (output.status.code().unwrap_or(-1), said)
    }

    /// Makes a dataset, which the worker must do.
    fn ingest(&self, name: &str) {
        let (code, said) = self.hat(&format!("ingest {name} photos --token-file token"));
        assert_eq!(code, 0, "{said}\n{}", self.log("worker.log"));
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.folder().join(name)).expect("it logs")
    }

    /// Waits until a log says something this many times.
    fn until_logged(&self, name: &str, text: &str, times: usize) {
        wait_until(text, || (self.log(name).matches(text).count() >= times).then_some(()));
    }
}

#[test]
fn a_worker_goes_on_while_its_certificate_the_servers_and_both_authorities_are_replaced() {
    const IN_USE: &str = "the new ones are in use";
    let (old, new) = (Authority::new(), Authority::new());
    let machines = Machines::start(&old);
    let (folder, both) = (machines.folder(), old.pem() + &new.pem());
    photos::write_classes(&folder.join("photos"), 4, 64);
    machines.ingest("before");
    let (code, said) = machines.hat("whoami --client-cert gpu-1.pem --client-key gpu-1.key");
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains(&format!("you are gpu-1, with the role worker, known by a certificate for {GPU_1}")),
        "{said}"
    );

    // Both ends trust both authorities; then everything is of the new one; then the old one is trusted no more.
    replace(&folder.join("ca.pem"), &both);
    machines.until_logged("worker.log", IN_USE, 1);
    machines.until_logged("coordinator.log", "the certificate changed", 1);
    new.worker(&[GPU_1]).write(folder, "gpu-1");
    machines.until_logged("worker.log", IN_USE, 2);
    new.server().write(folder, "server");
    machines.until_logged("coordinator.log", "the certificate changed", 2);
    replace(&folder.join("ca.pem"), &new.pem());
    machines.until_logged("worker.log", IN_USE, 3);
    machines.until_logged("coordinator.log", "the certificate changed", 3);
    machines.ingest("after");

    replace(&folder.join("gpu-1.key"), "nonsense");
    machines.until_logged("worker.log", "the last good content stays in use", 1);
    machines.ingest("still");
    assert!(!machines.log("worker.log").contains("the coordinator does not answer"), "{}", machines.log("worker.log"));
}

#[test]
fn a_certificate_that_expires_soon_is_named_in_the_log_and_by_doctor() {
    let authority = Authority::new();
    let machines = Machines::start(&authority);
    let days = Duration::from_secs(13 * 24 * 3_600 + 60);
    let soon = authority.worker_until(&[GPU_1], now() + days);
    soon.write(machines.folder(), "gpu-1");
    soon.write(machines.folder(), "server");
    machines.until_logged("worker.log", "gpu-1.pem, expires in 13 days", 1);
    machines.until_logged("coordinator.log", "server.pem expires in 13 days", 1);
    let (_, said) = machines.hat("doctor --client-cert gpu-1.pem --client-key gpu-1.key");
    let line = |word: &str| {
        said.lines().find(|line| line.starts_with(word) && line.contains("certificate ")).map(str::to_owned)
    };
    assert!(line("warn").is_some_and(|line| line.contains("gpu-1.pem expires in 13 days")), "{said}");
    assert!(line("ok").is_some_and(|line| line.contains("ca.pem is valid until")), "{said}");
}
