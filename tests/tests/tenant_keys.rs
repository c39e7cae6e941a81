//! A worker that serves several tenants reaches the objects of each with the keys that its operator gave it for that tenant.

use std::{fs, path::Path, process::Command};

use sortinghat_proto::Digest;
use sortinghat_tests::{
    Call, Gatekeeper, Process, S3Server, binary, lasting_address, photos, start_coordinator, wait_until,
};

/// The tenants with keys of their own, and one without.
const TENANTS: [&str; 3] = ["a", "b", "c"];

/// The key of the coordinator reaches everything, a tenant's key the tenant's prefix, and the worker's own key what belongs to no tenant.
fn allows(key: &str, path: &str) -> bool {
    match key {
        "coordinator" => true,
        "worker" => !path.contains("/t/"),
        tenant => path.contains(&format!("/t/{}/", tenant.trim_start_matches("key-"))),
    }
}

fn tokens() -> String {
    let line = |token: &str, rights: &str| {
        format!("[[tokens]]\nid = '{token}'\nsha256 = '{}'\n{rights}\n", Digest::of(token.as_bytes()))
    };
    let users = TENANTS.map(|tenant| line(tenant, &format!("tenant = '{tenant}'\nrole = 'user'")));
    users.concat() + &line("worker", "tenants = ['a', 'b', 'c']\nrole = 'worker'")
}

fn start_worker(at: &Path, coordinator: &str, s3: &dyn Fn(&mut Command)) -> Process {
    let profile =
        |name: &str, key: &str| format!("[{name}]\naws_access_key_id = {key}\naws_secret_access_key = secret\n");
    let profiles = profile("first", "key-a") + &profile("second", "key-b");
    fs::write(at.join("profiles"), profiles).expect("writable");
    let mut command = Command::new(binary("sortinghat-worker"));
    command.args(["run", "--device", "cpu", "--threads", "1", "--coordinator", coordinator]);
    command.args(["--tenant-profile", "a=first", "--tenant-profile", "b=second", "--data-dir"]).arg(at.join("worker"));
    s3(&mut command);
    command.env("AWS_ACCESS_KEY_ID", "worker").env("AWS_SHARED_CREDENTIALS_FILE", at.join("profiles"));
    command.env("SORTINGHAT_TOKEN", "worker");
    Process::start(&mut command, &at.join("worker.log"))
}

#[test]
fn each_tenants_objects_are_reached_with_its_own_keys_and_only_with_them() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let server = S3Server::start(at);
    let gate = Gatekeeper::start(server.bucket().address(), allows);
    let bucket = server.bucket().behind(gate.address());
    fs::write(at.join("tokens.toml"), tokens()).expect("writable");
    let log = at.join("coordinator.log");
    let (_coordinator, address) = start_coordinator(&at.join("coordinator"), lasting_address(), &log, |command| {
        bucket.give_to(command);
        command.env("AWS_ACCESS_KEY_ID", "coordinator").arg("--credentials").arg(at.join("tokens.toml"));
    });
    let url = format!("http://{address}");
    let _worker = start_worker(at, &url, &|command| bucket.give_to(command));
    photos::write_classes(&at.join("photos"), 4, 32);
    let hat = |tenant: &str, arguments: &[&str]| {
        let mut hat = Command::new(binary("hat"));
        hat.args(["--server", &url]).args(arguments).current_dir(at).env("SORTINGHAT_TOKEN", tenant);
        hat.output().expect("hat starts")
    };
    for tenant in ["a", "b"] {
        let ingested = hat(tenant, &["ingest", "shapes", "photos"]);
        assert!(ingested.status.success(), "{}", String::from_utf8_lossy(&ingested.stderr));
    }
    let calls = gate.calls();
    for key in ["key-a", "key-b"] {
        let uses = calls.iter().filter(|call| call.key == key).count();
        assert!(uses > 12, "{key} read the photos and wrote the dataset: {uses} calls");
    }
    let refused: Vec<_> = calls.iter().filter(|call| !call.is_allowed).collect();
    assert!(refused.is_empty(), "{refused:?}");

    let submitted = hat("c", &["--detach", "ingest", "shapes", "photos"]);
    assert!(submitted.status.success(), "{}", String::from_utf8_lossy(&submitted.stderr));
    wait_until("the worker's own key to be refused for a tenant without a profile", || {
        let is_refused = |call: &Call| call.key == "worker" && call.path.contains("/t/c/");
        gate.calls().iter().any(|call| is_refused(call) && !call.is_allowed).then_some(())
    });
    wait_until("the operator to be told", || {
        let log = fs::read_to_string(at.join("worker.log")).ok()?;
        log.contains("an object of this tenant cannot be reached").then_some(())
    });
    assert!(!gate.calls().iter().any(|call| call.key.starts_with("key-") && !call.is_allowed), "no key goes astray");
}
