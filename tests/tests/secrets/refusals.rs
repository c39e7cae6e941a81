//! Settings that cannot be used, with secrets in them or beside them.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use sortinghat_tests::{Process, binary, start_redis, wait_until};

use super::{
    pem,
    search::{Search, secret},
    secret_file,
    servers::Refusing,
};

/// A program with these arguments and no variables of ours but these.
fn command(folder: &Path, program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(binary(program));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["SORTINGHAT_", "AWS_", "HF_"].iter().any(|ours| text.starts_with(ours)) {
            command.env_remove(name);
        }
    }
    command.args(arguments).envs(variables.iter().copied()).env("HOME", folder).current_dir(folder);
    command
}

/// Refusals of one program.
struct Refusals<'f> {
    folder: &'f Path,
    program: &'static str,
    /// What every command line begins with.
    always: Vec<String>,
    search: Search,
}

impl<'f> Refusals<'f> {
    fn of(folder: &'f Path, program: &'static str, always: &[&str]) -> Self {
        let always = always.iter().map(|&word| word.to_owned()).collect();
        Self { folder, program, always, search: Search::new() }
    }

    /// Runs the program, which must refuse its settings with a message that has `says` in it.
    fn refused(&mut self, arguments: &[&str], variables: &[(&str, &str)], says: &str) {
        let output = self.run(arguments, variables);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{arguments:?} {variables:?} is refused");
        assert!(told.contains(says), "{says:?} is missing:\n{told}");
        self.search.outputs([(&*format!("{} {arguments:?}", self.program), output)]);
    }

    fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let all: Vec<&str> = self.always.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
        command(self.folder, self.program, &all, variables).output().expect("the program starts")
    }
}

#[test]
fn the_coordinator_refuses_settings_without_quoting_a_secret() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let password = secret("password");
    let mut it = Refusals::of(at, "sortinghat-coordinator", &["--log-filter", "trace", "--listen", "127.0.0.1:0"]);
    let redis = format!("redis://:{password}@127.0.0.1:1");
    it.refused(&["--store", &redis], &[], "--store-password-file");
    it.refused(&[], &[("SORTINGHAT_STORE", &redis)], "--store-password-file");
    for store in ["redsi://:{}@host", "redis://host?password={}", "redis://user:{}@[:1", "{}@host"] {
        it.refused(&["--store", &store.replace("{}", &password)], &[], "--store");
    }
    for (store, says) in [("s3://id:{}@bucket", "holds no keys"), ("s3://bucket?secret={}", "holds no options")] {
        it.refused(&["--object-store", &store.replace("{}", &password)], &[], says);
    }
    let endpoint = format!("https://id:{password}@bucket.example.org");
    it.refused(&["--object-store", "s3://photos"], &[("AWS_ENDPOINT_URL", &endpoint)], "AWS_ENDPOINT_URL has a user");
    for (number, content) in [
        format!("store = '{redis}'\n"),
        format!("store_password = '{password}'\n"),
        format!("store_password_file = {password}\n"),
        format!("lease_ttl = ['{password}']\n"),
        format!("max_waiting_tasks = '{password}'\n"),
        format!("log_format = '{password}\n"),
    ]
    .iter()
    .enumerate()
    {
        let file = secret_file(at, &format!("{number}.toml"), content);
        it.refused(&["--config", file.to_str().expect("UTF-8")], &[], "line 1: ");
    }
    for (number, line) in
        ["token = '{}'", "sha256 = '{}'", "role = '{}'", "tenants = '{}'", "sha256 = {}", "{}", "id = '{}"]
            .iter()
            .enumerate()
    {
        let content = format!("[[tokens]]\n{}\n", line.replace("{}", &password));
        let file = secret_file(at, &format!("tokens-{number}.toml"), &content);
        it.refused(&["--credentials", file.to_str().expect("UTF-8")], &[], "line 2: ");
    }
    it.search.assert_clean();
}

#[test]
fn the_coordinator_refuses_keys_passwords_and_stores_without_quoting_a_secret() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let mut it = Refusals::of(at, "sortinghat-coordinator", &["--log-filter", "trace", "--listen", "127.0.0.1:0"]);
    let data = at.join("data");
    let data = ["--data-dir", data.to_str().expect("UTF-8")];
    let key = fs::read_to_string(pem("key.pem")).expect("it is committed");
    let [cert, good] = ["cert.pem", "key.pem"].map(|name| pem(name).display().to_string());
    let damaged = [
        key.replace("-----BEGIN PRIVATE KEY-----", &format!("-----BEGIN PRIVATE KEY {}", secret("key"))),
        key.replace("-----END", "----END"),
        key.replace('M', "#"),
        secret("no-pem"),
    ];
    for (number, content) in damaged.iter().enumerate() {
        let damaged = secret_file(at, &format!("{number}.pem"), content);
        let damaged = damaged.to_str().expect("UTF-8");
        it.refused(&[&data[..], &["--tls-cert", &cert, "--tls-key", damaged]].concat(), &[], "the key: ");
        it.refused(&[&data[..], &["--tls-cert", damaged, "--tls-key", &good]].concat(), &[], "TLS");
    }
    it.refused(&[&data[..], &["--tls-cert", &good, "--tls-key", &cert]].concat(), &[], "TLS");

    let (_redis, port) = start_redis(at, &["--requirepass", &secret("redis")]);
    let wrong = secret_file(at, "wrong", &secret("wrong-password"));
    let store = format!("redis://127.0.0.1:{port}");
    let with_redis = ["--store", &store, "--store-password-file", wrong.to_str().expect("UTF-8"), "--object-store"];
    it.refused(&[&data[..], &with_redis, &["file:///tmp"]].concat(), &[], "failed to open the queue's store");
    let bucket = Refusing::start("403 Forbidden").url();
    let keys = [("AWS_ACCESS_KEY_ID", secret("s3-id")), ("AWS_SECRET_ACCESS_KEY", secret("s3-key"))];
    let variables = [("AWS_ENDPOINT_URL", &*bucket), (keys[0].0, &keys[0].1), (keys[1].0, &keys[1].1)];
    let refused = [&data[..], &["--object-store", "s3://photos", "--lease-ttl", "1s"]].concat();
    it.refused(&refused, &variables, "refuses access");

    let everything =
        [&data[..], &with_redis, &["s3://photos", "--tls-cert", &cert, "--tls-key", &good, "--dump-config"]];
    let dumped = it.run(&everything.concat(), &variables);
    assert!(String::from_utf8_lossy(&dumped.stdout).contains("store_password_file"), "it names the file");
    let help = it.run(&["--help"], &[("SORTINGHAT_STORE", &format!("redis://:{}@host", secret("password")))]);
    it.search.outputs([("--dump-config", dumped), ("--help", help)]);
    it.search.folder(at);
    it.search.assert_clean();
}

#[test]
fn a_worker_refuses_settings_without_quoting_a_secret() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let password = secret("password");
    let always = ["run", "--device", "cpu", "--coordinator", "http://127.0.0.1:1", "--data-dir"];
    let data = at.join("data");
    let always = [&always[..], &[data.to_str().expect("UTF-8")]].concat();
    let mut it = Refusals::of(at, "sortinghat-worker", &always);
    let with_password = format!("https://anna:{password}@host:7878");
    let mut bare = Refusals::of(at, "sortinghat-worker", &["run"]);
    bare.refused(&["--coordinator", &with_password], &[], "https://***@host:7878");
    bare.refused(&[], &[("SORTINGHAT_COORDINATOR", &with_password)], "https://***@host:7878");
    bare.refused(&[&format!("--token={password}")], &[], "--token");
    bare.refused(&["--token", &password], &[], "--token");
    it.refused(&["--object-store", &format!("s3://id:{password}@bucket")], &[], "s3://***@bucket");
    it.refused(&["--object-store", "s3://b"], &[("AWS_ENDPOINT_URL", &with_password)], "AWS_ENDPOINT_URL has a user");
    it.refused(&[], &[("HF_ENDPOINT", &with_password)], "HF_ENDPOINT is \"https://***@host:7878\"");
    it.refused(&[], &[("HF_TOKEN", &format!("{password}\n"))], "HF_TOKEN holds characters");
    let broken = format!("{password}\n\u{7}");
    it.refused(&[], &[("SORTINGHAT_TOKEN", &broken)], "the token contains characters");
    let token = secret_file(at, "token", &broken);
    it.refused(&["--token-file", token.to_str().expect("UTF-8")], &[], "contains characters that are not allowed");
    // An executor that prints its environment and its arguments before it dies, as a panic does that shows too much.
    let script = at.join("executor");
    fs::write(&script, "#!/bin/sh\nenv; echo \"$0 $@\"; echo 'thread main panicked'; exit 101\n").expect("writable");
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("it is ours");
    let variables = [
        ("SORTINGHAT_TEST_EXECUTOR", script.to_str().expect("UTF-8")),
        ("SORTINGHAT_TOKEN", &*password),
        ("AWS_SECRET_ACCESS_KEY", &*password),
        ("HF_TOKEN", &*password),
        ("RUST_LOG", "trace"),
    ];
    it.refused(&[], &variables, "PATH=");
    it.search.folder(at);
    it.search.assert_clean();
    bare.search.assert_clean();
}

#[test]
fn a_worker_whose_bucket_refuses_it_says_so_without_quoting_a_secret() {
    // One status is an end, the other is tried again.
    for status in ["403 Forbidden", "503 Slow Down"] {
        assert_worker_complains_cleanly(status);
    }
}

fn assert_worker_complains_cleanly(status: &'static str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let (bucket, keys) = (Refusing::start(status).url(), [secret("s3-id"), secret("s3-key")]);
    let data = at.join("data");
    let arguments = ["run", "--device", "cpu", "--coordinator", "http://127.0.0.1:1", "--object-store", "s3://photos"];
    let arguments = [&arguments[..], &["--data-dir", data.to_str().expect("UTF-8")]].concat();
    let variables = [
        ("AWS_ENDPOINT_URL", &*bucket),
        ("AWS_ACCESS_KEY_ID", &*keys[0]),
        ("AWS_SECRET_ACCESS_KEY", &*keys[1]),
        ("RUST_LOG", "trace"),
    ];
    let log = at.join("worker.log");
    let worker = Process::start(&mut command(at, "sortinghat-worker", &arguments, &variables), &log);
    wait_until("the worker to say what is wrong", || {
        let log = fs::read_to_string(&log).ok()?;
        log.contains("this worker cannot work").then_some(())
    });
    drop(worker);
    let mut search = Search::new();
    search.folder(at);
    search.assert_clean();
}

#[test]
fn hat_refuses_addresses_and_tokens_without_quoting_a_secret() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let password = secret("password");
    let mut hat = Refusals::of(at, "hat", &[]);
    let address = format!("https://anna:{password}@host");
    hat.refused(&["--server", &address, "jobs"], &[], "https://***@host");
    hat.refused(&["--json", "jobs"], &[("SORTINGHAT_SERVER", &address)], "https://***@host");
    hat.refused(&["up", "--server", &address], &[], "https://***@host");
    hat.refused(&["--server", &format!("anna:{password}@host:1"), "jobs"], &[], "***@host:1");
    hat.refused(&["--server", "https://[", "jobs"], &[("SORTINGHAT_TOKEN", &password)], "cannot be used");
    for token in [&["--token", &*password][..], &[&format!("--token={password}")]] {
        hat.refused(&[token, &["jobs"]].concat(), &[], "--token");
    }
    let elsewhere = ["--server", "http://192.0.2.1:1", "jobs"];
    hat.refused(&elsewhere, &[("SORTINGHAT_TOKEN", &password)], "use https");
    let here = ["--server", "http://127.0.0.1:1", "jobs"];
    hat.refused(&here, &[("SORTINGHAT_TOKEN", &format!("{password}\n\u{7}"))], "not allowed in a header");
    hat.refused(&here, &[("SORTINGHAT_TOKEN", &password)], "no server answers");
    hat.search.assert_clean();
}
