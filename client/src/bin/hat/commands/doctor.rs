use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use serde_json::json;
use sortinghat_client::Client;
use sortinghat_link::{expiry_warning, first_expiry};
use sortinghat_proto::v1::Worker;

use crate::{
    args::Doctor,
    exit::Exit,
    failure::Failure,
    local::{
        binaries::{self, COORDINATOR, WORKER},
        cache,
        data_dir::DataDir,
        server::Server,
    },
    session::Session,
    show::{
        line::{print_json, print_styled},
        numbers::{bytes, counted},
        paper::Tint,
        plain, worker,
    },
};

/// With less space than this, the disk is full soon: a dataset of ten thousand photos takes about as much.
const LITTLE_SPACE_BYTES: u64 = 5 << 30;
/// With less space than this, the first job fails in its middle.
const NO_SPACE_BYTES: u64 = 500 << 20;
const PATIENCE: Duration = Duration::from_secs(3);
/// What gives a worker its libtorch: the first in a package, the second in a checkout.
const LIBTORCH_CURE: &str = "`sortinghat-setup` installs libtorch, and `make deps` in a checkout";

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One line of the diagnosis.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    verdict: Verdict,
    what: &'static str,
    /// What was found, and what to do about it unless all is well.
    found: String,
}

impl Check {
    fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, what, found: found.into() }
    }

    fn warn(what: &'static str, found: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, what, found: found.into() }
    }

    fn fail(what: &'static str, found: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, what, found: found.into() }
    }
}

pub(super) async fn run(session: &Session, args: Doctor) -> Result<Exit, Failure> {
    let data_dir = session.data_dir()?;
    let mut checks = vec![binary("coordinator", COORDINATOR), binary("worker", WORKER), libtorch()];
    checks.push(weights(&args.weights_dir.unwrap_or_else(cache::weights)));
    checks.push(space(&data_dir));
    checks.extend(session.certificate_files().map(certificate));
    checks.extend(server(session).await?);
    checks.iter().for_each(|check| print(session, check));
    let failed = checks.iter().any(|check| check.verdict == Verdict::Fail);
    Ok(if failed { Exit::JobFailed } else { Exit::Ok })
}

fn print(session: &Session, check: &Check) {
    let word = match check.verdict {
        Verdict::Ok => "ok",
        Verdict::Warn => "warn",
        Verdict::Fail => "fail",
    };
    if session.json() {
        print_json(&json!({ "verdict": word, "check": check.what, "found": check.found }));
        return;
    }
    let tint = match check.verdict {
        Verdict::Ok => Tint::Good,
        Verdict::Warn => Tint::Waiting,
        Verdict::Fail => Tint::Bad,
    };
    let padded = session.paper().tinted(format_args!("{word:<4}"), tint);
    print_styled(&format!("{padded}  {:<13} {}", check.what, plain::text(&check.found)));
}

fn binary(what: &'static str, name: &str) -> Check {
    match binaries::find(name) {
        Ok(path) => Check::ok(what, path.display().to_string()),
        Err(failure) => Check::fail(what, failure.to_string()),
    }
}

/// Lets the worker load libtorch and say which device it would compute on.
fn libtorch() -> Check {
    const WHAT: &str = "libtorch";
    let Ok(worker) = binaries::find(WORKER) else {
        return Check::fail(WHAT, "not checked, because the worker was not found");
    };
    // The folder that this command was started in may be gone.
    match Command::new(worker).arg("devices").current_dir("/").output() {
        Ok(output) if output.status.success() => Check::ok(WHAT, String::from_utf8_lossy(&output.stdout).trim()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Check::fail(WHAT, format!("{}; {LIBTORCH_CURE}", said.trim()))
        }
        Err(error) => Check::fail(WHAT, format!("the worker does not start: {error}; {LIBTORCH_CURE}")),
    }
}

fn weights(folder: &Path) -> Check {
    const WHAT: &str = "weights";
    let names = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let mut names: Vec<String> = names
        .filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
        .filter_map(|path| path.file_stem()?.to_str().map(ToOwned::to_owned))
        .collect();
    names.sort();
    let place = folder.display();
    match names.is_empty() {
        false => Check::ok(WHAT, format!("{} in {place}", names.join(", "))),
        true => Check::warn(
            WHAT,
            format!(
                "there are none in {place}: `sortinghat-setup` installs some, and `make deps` in a checkout; without them, jobs fetch weights from the hub, or --weights names a file"
            ),
        ),
    }
}

fn space(data_dir: &DataDir) -> Check {
    const WHAT: &str = "disk space";
    let existing = data_dir.path().ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let place = data_dir.path().display();
    match nix::sys::statvfs::statvfs(existing) {
        Ok(volume) => match volume.blocks_available() * volume.fragment_size() {
            free if free < NO_SPACE_BYTES => Check::fail(
                WHAT,
                format!("{} left for {place}: make room, or name another folder with --data-dir", bytes(free)),
            ),
            free if free < LITTLE_SPACE_BYTES => Check::warn(WHAT, format!("only {} left for {place}", bytes(free))),
            free => Check::ok(WHAT, format!("{} left for {place}", bytes(free))),
        },
        Err(error) => Check::warn(WHAT, format!("the free space for {place} is not known: {error}")),
    }
}

/// A file of certificates that the connection to the server needs: the one to show, or those to trust.
#[expect(clippy::disallowed_methods, reason = "certificates expire by the wall clock")]
fn certificate(path: &Path) -> Check {
    const WHAT: &str = "certificate";
    let (place, now) = (path.display(), SystemTime::now());
    let expires = match fs::read(path).map(|pem| first_expiry(&pem)) {
        Ok(Ok(expires)) => expires,
        Ok(Err(error)) => return Check::fail(WHAT, format!("{place}: {error}")),
        Err(error) => return Check::fail(WHAT, format!("{place} cannot be read: {error}")),
    };
    match expiry_warning(&format!("the certificate in {place}"), expires, now) {
        Some(expired) if expires <= now => Check::fail(WHAT, expired),
        Some(soon) => Check::warn(WHAT, soon),
        None => Check::ok(WHAT, format!("{place} is valid until {}", humantime::format_rfc3339_seconds(expires))),
    }
}

/// Checks the server, its workers, and whether an object can be stored and read back.
async fn server(session: &Session) -> Result<Vec<Check>, Failure> {
    let Server { url, patience, .. } = match session.server() {
        Ok(server) => server,
        Err(failure @ Failure::NothingRuns { .. }) => return Ok(vec![Check::warn("server", failure.to_string())]),
        Err(failure) => return Err(failure),
    };
    let client = match Client::connect_within(session.endpoint(url.clone()), patience).await {
        Ok(client) => client.with_patience(PATIENCE),
        Err(error) => return Ok(vec![Check::warn("server", format!("{error}: `hat up` starts one on this machine"))]),
    };
    let workers = match client.list_workers().await {
        Ok(workers) => workers,
        Err(error) => return Ok(vec![Check::fail("server", format!("{url} answers, but it refuses: {error}"))]),
    };
    Ok(vec![Check::ok("server", url), able_workers(&workers), object_store(&client).await])
}

/// Whether there are workers, and whether they can work.
fn able_workers(workers: &[Worker]) -> Check {
    const WHAT: &str = "workers";
    let number = counted(workers.len() as u64, "worker", "workers");
    let troubles: Vec<String> = workers.iter().filter_map(worker::trouble).collect();
    match (workers.len(), troubles.len()) {
        (0, _) => {
            Check::warn(WHAT, "no worker is running: jobs wait until `hat up` or `sortinghat-worker run` starts one")
        }
        (_, 0) => Check::ok(WHAT, number),
        (all, unable) if unable == all => Check::fail(WHAT, format!("no worker can work: {}", troubles.join("; "))),
        _ => Check::warn(WHAT, format!("{number}, but {}", troubles.join("; "))),
    }
}

async fn object_store(client: &Client) -> Check {
    const WHAT: &str = "object store";
    let content = b"hat doctor was here\n".as_slice();
    let read_back = async {
        let object = client.upload_bytes(content.into()).await?;
        client.read_object(&object).await
    };
    match read_back.await {
        Ok(_) => Check::ok(WHAT, "an object was stored and read back"),
        Err(error) => Check::fail(WHAT, format!("{error}; the coordinator's log says more")),
    }
}
