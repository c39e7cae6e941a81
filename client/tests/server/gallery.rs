//! Pages that show photos by class.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{coordinator::Coordinator, hat::Hat};

/// A file name that would run a script if it were taken for markup.
const HOSTILE: &str = "\"><img src=x onerror=alert(1)>.jpg";

/// A server with the model stamps/1, and the folder `holiday`.
fn deployment() -> (Coordinator, Hat) {
    let (coordinator, hat) = Coordinator::with_model();
    for path in [HOSTILE, "beach/1.jpg", "2.heic"] {
        hat.write(&format!("holiday/{path}"), path.as_bytes());
    }
    (coordinator, hat)
}

/// What a page shows.
fn data(hat: &Hat, page: &str) -> serde_json::Value {
    let page = std::fs::read_to_string(hat.path().join(page)).expect("it was written");
    assert!(!page.contains("<img"), "no name is markup");
    let data = page.split("id=\"data\">").nth(1).and_then(|rest| rest.split("</script>").next()).expect("data");
    serde_json::from_str(data).expect("JSON")
}

#[test]
fn a_gallery_shows_where_photos_are_before_and_after_they_are_sorted() {
    let (_coordinator, hat) = deployment();
    std::fs::create_dir(hat.path().join("pages")).expect("writable");
    let output = hat.run("classify stamps/1 holiday --gallery pages/classes.html --quiet");
    let told = String::from_utf8(output.stdout).expect("text");
    assert!(told.ends_with("pages/classes.html\n"), "{told}");
    let shown = data(&hat, "pages/classes.html");
    assert_eq!(shown["model"], "stamps/1");
    let photo = |path: &str, place: &str| serde_json::json!([path, place, "red", 0.75]);
    let before = [photo(HOSTILE, &format!("../holiday/{HOSTILE}")), photo("beach/1.jpg", "../holiday/beach/1.jpg")];
    assert_eq!(shown["photos"], serde_json::json!(before));
    assert_eq!(shown["errors"], serde_json::json!([["2.heic", "HEIC is not supported"]]));

    let sort = "sort stamps/1 holiday --into sorted --mode move";
    assert!(hat.run(&format!("{sort} --dry-run --gallery plan.html")).status.success());
    assert_eq!(data(&hat, "plan.html")["photos"][1][1], "holiday/beach/1.jpg");
    assert!(hat.run(&format!("{sort} --gallery sorted.html")).status.success());
    let shown = data(&hat, "sorted.html");
    assert_eq!(shown["photos"][1], photo("beach/1.jpg", "sorted/red/1.jpg"));
    assert!(hat.path().join("sorted/red/1.jpg").exists());
}

#[test]
fn a_gallery_that_could_not_be_written_is_refused_before_there_is_a_job() {
    let (_coordinator, hat) = deployment();
    hat.write("mine.html", b"mine");
    let newest = hat.newest_job();
    let transcript = hat.transcript(&[
        "classify stamps/1 holiday --gallery page.txt",
        "classify stamps/1 holiday --gallery mine.html",
        "classify stamps/1 holiday --gallery page.html --detach",
        "sort stamps/1 holiday --into sorted --gallery nowhere/page.html",
    ]);
    assert_eq!(hat.newest_job(), newest, "nothing was submitted");
    hat.assert_snapshot("galleries", &transcript);
    assert!(hat.run("classify stamps/1 holiday --gallery mine.html --force").status.success());
    assert!(data(&hat, "mine.html")["photos"].is_array());
}

/// A picture of one pixel.
const PIXEL: &[u8] =
    b"GIF89a\x01\0\x01\0\x80\0\0\xff\0\0\0\0\0!\xf9\x04\0\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";

#[test]
fn a_gallery_of_ten_thousand_photos_works_in_chromium_by_keys_and_axe_finds_no_violation() {
    let home = || PathBuf::from(env::var_os("HOME").expect("a home")).join(".cache/sortinghat");
    let browser = env::var_os("SORTINGHAT_CACHE").map_or_else(home, PathBuf::from).join("browser");
    assert!(browser.join("chromium").is_dir(), "no browser in {}: run `make test-deps`", browser.display());
    let (_coordinator, hat) = deployment();
    for number in 0..10_000 {
        hat.write(&format!("many/{number}.jpg"), PIXEL);
    }
    hat.write(&format!("many/{HOSTILE}"), PIXEL);
    hat.write("many/broken.heic", b"broken");
    let output = hat.run("classify stamps/1 many --gallery page.html --out p.csv");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server/gallery.test.mjs");
    let mut node = Command::new("node");
    node.arg("--test").arg(script).env("BROWSER", &browser).env("PAGES", hat.path());
    let output = node.output().expect("node starts: `deploy/install.sh test` says how to get it");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{stdout}");
    assert!(output.status.success(), "{stdout}\n{stderr}");
}
