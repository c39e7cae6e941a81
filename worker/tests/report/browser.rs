//! The page in Chromium. The test of what it does there is written in the page's language, in `browser.test.mjs`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use sortinghat_proto::manifest::{Decision, Decisions, Remark, Verdict};

use crate::audit;
use crate::sample::{HOSTILE, Sample, TTA, digest};

/// The pages that the test opens.
fn pages() -> Vec<(&'static str, String)> {
    let given = Decisions {
        decisions: vec![
            Decision { digest: digest(0, 0), path: Some("animals/000.png".into()), verdict: Verdict::Exclude },
            // The page shows the least sure right predictions only, and not this one.
            Decision { digest: digest(2, 11), path: Some("vehicles/011.png".into()), verdict: Verdict::Keep },
        ],
    };
    let later = Sample { model: "stamps/2", errors_per_class: 2, ..Sample::default() };
    let noticed = Remark::SimilarNames { groups: vec![vec![HOSTILE.into(), "zebra".into()]] };
    let hostile =
        Sample { classes: vec![HOSTILE.into(), "zebra".into()], tta: TTA, remarks: vec![noticed], ..Sample::default() };
    vec![
        ("first", Sample { tta: TTA, skipped: 2, ..Sample::default() }.html()),
        ("later", later.html()),
        ("given", Sample { decisions: Some(given), ..Sample::default() }.html()),
        ("hostile", hostile.html()),
        ("audit", audit::html(["animals", "food"])),
        ("faultless", Sample { errors_per_class: 0, learned_from: None, ..Sample::default() }.html()),
    ]
}

#[test]
fn the_page_works_in_chromium_by_mouse_keys_and_touch_and_axe_finds_no_violation() {
    let browser = cache().join("browser");
    assert!(browser.join("chromium").is_dir(), "no browser in {}: run `make test-deps`", browser.display());
    let folder = tempfile::tempdir().unwrap();
    for (name, page) in pages() {
        fs::write(folder.path().join(name).with_extension("html"), page).unwrap();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/report/browser.test.mjs");
    let mut node = Command::new("node");
    node.arg("--test").arg(script).env("BROWSER", &browser).env("PAGES", folder.path());
    let output = node.output().expect("node starts: `deploy/install.sh test` says how to get it");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
}

/// Where `make test-deps` installs.
fn cache() -> PathBuf {
    let home = || PathBuf::from(env::var_os("HOME").expect("a home")).join(".cache/sortinghat");
    env::var_os("SORTINGHAT_CACHE").map_or_else(home, PathBuf::from)
}
