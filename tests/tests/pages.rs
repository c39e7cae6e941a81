//! The pages for operators: each metric is explained and has a zero before anything has happened, the probes say what they promise, and a
//! worker counts what it does.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::signal::{Signal, kill};
use sortinghat_tests::{Process, binary, lasting_address, metrics_in, page, photos, start_coordinator, wait_until};

/// Asserts that a page explains each metric that the sources of a package name, and has a value of it.
fn assert_all_shown(page: &str, package: &str) {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(package).join("src");
    let names = metrics_in(&sources);
    assert!(names.len() > 10, "{names:?}");
    // Where there is no certificate, a time at which one ends would be a lie.
    let always = names.iter().map(String::as_str).filter(|name| !name.ends_with("_timestamp_seconds"));
    for name in always.chain(["sortinghat_build_info", "process_resident_memory_bytes"]) {
        assert!(page.contains(&format!("# HELP {name} ")), "{name} is not explained");
        let is_value = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ', '_']));
        assert!(page.lines().any(|line| is_value(&line)), "{name} has no value:\n{page}");
    }
}

/// The sum of all values of a metric.
fn value(page: &str, start: &str) -> f64 {
    let lines = page.lines().filter(|line| line.starts_with(start));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn is_ok(address: SocketAddr, path: &str) -> bool {
    page(address, path).starts_with("HTTP/1.1 200")
}

#[test]
fn each_metric_has_a_help_and_a_zero_and_a_worker_counts_what_it_does() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let (pages, own_pages) = (lasting_address(), lasting_address());
    let objects = format!("file://{}", at.join("objects").display());
    let listen = lasting_address();
    let (_coordinator, address) = start_coordinator(&at.join("data"), listen, &at.join("log"), |command| {
        command.args(["--object-store", &objects, "--metrics-listen", &pages.to_string()]);
    });
    assert_all_shown(&page(pages, "/metrics"), "coordinator");

    let mut command = Command::new(binary("sortinghat-worker"));
    command.args(["run", "--device", "cpu", "--threads", "1", "--coordinator", &format!("http://{address}")]);
    command.args(["--object-store", &objects, "--metrics-listen", &own_pages.to_string(), "--data-dir"]);
    let mut worker = Process::start(command.arg(at.join("worker")), &at.join("worker.log"));
    wait_until("the worker to have started", || {
        std::net::TcpStream::connect(own_pages).ok()?;
        is_ok(own_pages, "/startupz").then_some(())
    });
    assert!(is_ok(own_pages, "/livez") && is_ok(own_pages, "/readyz"));
    assert_all_shown(&page(own_pages, "/metrics"), "worker");

    photos::write_classes(&at.join("photos"), 4, 32);
    let mut hat = Command::new(binary("hat"));
    hat.args(["--server", &format!("http://{address}"), "ingest", "shapes"])
        .arg(PathBuf::from("photos"))
        .current_dir(at);
    assert!(hat.output().expect("hat starts").status.success());
    let executor = worker.child().expect("an executor runs");
    kill(executor, Signal::SIGKILL).expect("it is ours");
    let metrics = wait_until("the death to be counted", || {
        let metrics = page(own_pages, "/metrics");
        (value(&metrics, "sortinghat_worker_executor_deaths_total{cause=\"died\"}") >= 1.0).then_some(metrics)
    });
    for (start, least) in [
        ("sortinghat_worker_tasks_claimed_total{kind=\"ingest\"}", 1.0),
        ("sortinghat_worker_task_seconds_count{kind=\"ingest\",outcome=\"succeeded\"}", 1.0),
        ("sortinghat_worker_executor_starts_total", 1.0),
        ("sortinghat_worker_object_store_seconds_count{operation=\"put\"}", 1.0),
        ("sortinghat_worker_able", 1.0),
        ("sortinghat_worker_slots", 1.0),
    ] {
        assert!(value(&metrics, start) >= least, "{start}:\n{metrics}");
    }
    assert!(value(&metrics, "sortinghat_worker_tasks_running").abs() < 0.5, "nothing runs");
    assert!(!metrics.contains("local"), "no tenant is named");
    assert!(worker.terminate().success());
}
