//! Secrets never show. Each is put where its user puts it, by file or by variable. The programs run with everything logged, and fail in every
//! way that would quote a secret. All that they print, log, store and answer is searched, and so are their command lines.

mod refusals;
mod search;
mod servers;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use nix::unistd::Pid;
use sortinghat_proto::Digest;
use sortinghat_tests::{
    Background, Bucket, Process, S3Server, binary, lasting_address, page, photos, start_coordinator, start_redis,
    wait_until,
};

use search::{Search, secret};
use servers::Refusing;

/// A deployment with a secret in every place that has one: Redis, a bucket, TLS, tokens of a user and of a worker, a hub.
struct Cluster {
    // The processes come first, as they must end before the folder that they write into.
    worker: Process,
    coordinator: Process,
    _redis: Process,
    _s3: S3Server,
    address: SocketAddr,
    pages: SocketAddr,
    folder: tempfile::TempDir,
}

/// A file with a secret, in the folder that is not searched.
fn secret_file(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join("secrets").join(name);
    fs::create_dir_all(folder.join("secrets")).expect("writable");
    fs::write(&path, content).expect("writable");
    path
}

/// A file of the coordinator's own tests: a certificate for loopback or its key.
fn pem(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../coordinator/tests/api/tls").join(name)
}

fn tokens() -> String {
    let line = |name: &str, rights: &str| {
        let sha256 = Digest::of(secret(name).as_bytes());
        format!("[[tokens]]\nid = '{name}'\nsha256 = '{sha256}'\n{rights}\n")
    };
    let user = "tenant = 'team'\nrole = 'user'";
    line("user-by-file", user)
        + &line("user-by-variable", user)
        + &line("worker", "tenants = ['team']\nrole = 'worker'")
}

impl Cluster {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = folder.path();
        let (redis, port) = start_redis(at, &["--requirepass", &secret("redis")]);
        let s3 = S3Server::start(at);
        let (listen, pages) = (lasting_address(), lasting_address());
        let (coordinator, address) =
            start_coordinator(&at.join("coordinator"), listen, &at.join("coordinator.log"), |it| {
                it.args(["--store", &format!("redis://127.0.0.1:{port}"), "--log-filter", "trace", "--metrics-listen"]);
                it.arg(pages.to_string());
                it.arg("--store-password-file").arg(secret_file(at, "redis", &secret("redis")));
                it.arg("--credentials").arg(secret_file(at, "tokens.toml", &tokens()));
                it.arg("--tls-cert").arg(pem("cert.pem")).arg("--tls-key").arg(pem("key.pem"));
                s3.bucket().give_to(it);
                it.env("AWS_ACCESS_KEY_ID", secret("s3-id")).env("AWS_SECRET_ACCESS_KEY", secret("s3-key"));
                it.env("AWS_SESSION_TOKEN", secret("s3-session"));
            });
        let worker = start_worker(at, address, &s3.bucket());
        Self { worker, coordinator, _redis: redis, _s3: s3, address, pages, folder }
    }

    /// `hat` as the user whose token is in a file.
    fn hat(&self, arguments: &[&str]) -> Output {
        let token = secret_file(self.folder.path(), "user", &secret("user-by-file"));
        let mut command = self.stranger(arguments);
        command.arg("--token-file").arg(token).output().expect("hat starts")
    }

    /// `hat` without a token.
    fn stranger(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("hat"));
        command.args(arguments).args(["--server", &format!("https://localhost:{}", self.address.port()), "--ca-file"]);
        command.arg(pem("cert.pem")).current_dir(self.folder.path()).env("HOME", self.folder.path());
        command
    }
}

/// A worker whose secrets are in files, but for the hub's, which has no file.
fn start_worker(at: &Path, address: SocketAddr, bucket: &Bucket) -> Process {
    let keys = ["id", "key", "session"].map(|name| secret(&format!("profile-{name}")));
    let profile = format!(
        "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\naws_session_token = {}\n",
        keys[0], keys[1], keys[2]
    );
    let mut command = Command::new(binary("sortinghat-worker"));
    command.args(["run", "--device", "cpu", "--threads", "1", "--share-hub-token", "--coordinator"]);
    command.arg(format!("https://localhost:{}", address.port())).arg("--data-dir").arg(at.join("worker"));
    command.arg("--ca-file").arg(pem("cert.pem"));
    command.arg("--token-file").arg(secret_file(at, "worker", &secret("worker")));
    bucket.give_to(&mut command);
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    command.env("AWS_SHARED_CREDENTIALS_FILE", secret_file(at, "profile", &profile));
    command.env("HF_TOKEN", secret("hub")).env("HF_ENDPOINT", Refusing::start("401 Unauthorized").url());
    command.env("RUST_LOG", "trace").env("RUST_BACKTRACE", "1");
    Process::start(&mut command, &at.join("worker.log"))
}

/// What everybody on the machine can read of a process.
fn command_line(process: Pid) -> Vec<u8> {
    fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default()
}

#[test]
fn a_deployment_that_works_and_whose_jobs_fail_shows_no_secret_to_anybody() {
    let cluster = Cluster::start();
    let at = cluster.folder.path();
    let mut search = Search::new();
    photos::write_classes(&at.join("photos"), 4, 32);
    wait_until("the worker to be able to work", || {
        let workers = cluster.hat(&["--json", "workers"]);
        String::from_utf8_lossy(&workers.stdout).contains("\"is_able\":true").then_some(())
    });
    let ingested = cluster.hat(&["ingest", "shapes", "photos"]);
    assert!(ingested.status.success(), "{}", String::from_utf8_lossy(&ingested.stderr));
    let failed = cluster.hat(&["--json", "finetune", "shapes", "--weights", "hub:owner/name"]);
    let told = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(told.contains("the hub of models refuses it"), "{told}");
    search.outputs([("ingest", ingested), ("finetune", failed)]);
    for arguments in [
        &["jobs"][..],
        &["--json", "jobs"],
        &["jobs", "logs"],
        &["--json", "jobs", "logs"],
        &["jobs", "why"],
        &["--json", "jobs", "show"],
        &["--json", "workers"],
        &["--json", "datasets"],
        &["doctor"],
        &["whoami"],
        &["queue"],
    ] {
        search.outputs([(&*arguments.join(" "), cluster.hat(arguments))]);
    }
    for (what, token) in [("a known token", secret("user-by-variable")), ("another token", secret("stranger"))] {
        let output = cluster.stranger(&["--json", "jobs"]).env("SORTINGHAT_TOKEN", token).output();
        search.outputs([(what, output.expect("hat starts"))]);
    }
    for path in ["/metrics", "/healthz"] {
        search.bytes(path, page(cluster.pages, path).as_bytes());
    }
    let executor = cluster.worker.child().expect("an executor runs");
    for process in [cluster.coordinator.pid(), cluster.worker.pid(), executor] {
        let line = command_line(process);
        assert!(!line.is_empty(), "{process} runs");
        search.bytes("a command line", &line);
    }
    let environment = fs::read(format!("/proc/{executor}/environ")).expect("it is ours");
    search.bytes("the environment of the executor", &environment);
    search.folder(at);
    for log in ["coordinator.log", "worker.log"] {
        assert!(fs::read_to_string(at.join(log)).expect("written").contains("TRACE"), "{log} has everything");
    }
    search.assert_clean();
}

#[test]
fn a_server_of_one_machine_that_is_given_secrets_by_variables_writes_none_of_them() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (background, up) = Background::start(folder.path().join("data"), |hat| {
        hat.env("SORTINGHAT_TOKEN", secret("token")).env("HF_TOKEN", secret("hub"));
        hat.env("AWS_ACCESS_KEY_ID", secret("s3-id")).env("AWS_SECRET_ACCESS_KEY", secret("s3-key"));
        hat.env("HF_ENDPOINT", Refusing::start("403 Forbidden").url()).env("RUST_LOG", "trace");
        hat.env("SORTINGHAT_LOG", "trace");
    });
    let mut search = Search::new();
    photos::write_classes(&folder.path().join("photos"), 4, 32);
    search.outputs([("up", up)]);
    for arguments in [
        &["ingest", "shapes", "photos"][..],
        &["finetune", "shapes", "--weights", "hub:owner/name"],
        &["jobs", "logs"],
        &["doctor"],
        &["whoami"],
    ] {
        let mut hat = background.hat();
        hat.args(arguments).current_dir(folder.path()).env("SORTINGHAT_TOKEN", secret("token"));
        search.outputs([(&*arguments.join(" "), hat.output().expect("hat starts"))]);
    }
    assert!(folder.path().join("data/hat.json").exists());
    search.folder(folder.path());
    search.assert_clean();
}
