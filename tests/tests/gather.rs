//! Photos from the web, from the search to the class of one photo: a service that answers as Openverse does, on this machine.

use std::{fs, sync::Arc};

use parking_lot::{Condvar, Mutex};
use serde_json::{Value, json};
use sortinghat_tests::{Asked, Deployment, Options, Reply, Victim, Web, cache, photos, wait_until};

const CLASSES: [&str; 10] = ["asp", "bat", "cat", "dog", "elk", "fox", "gnu", "hen", "ibis", "jay"];
/// Photos that the service finds for each class.
const FOUND: u32 = 8;
const SIDE: u32 = 96;

/// What the service has at a place. A tenth of it is not what it should be.
fn photo(class: u32, number: u32) -> Reply {
    match (class, number) {
        (0, 1) => Reply::ok("<!doctype html><html>a page for who is not logged in</html>"),
        (1, 1) => Reply::status("404 Not Found"),
        (2, 1) => Reply::ok(&photos::blocks(2, 1, SIDE)[..200]),
        // The same file as another of its class, and as one of another class.
        (3, 1) => Reply::ok(photos::blocks(3, 0, SIDE)),
        (4, 1) => Reply::ok(photos::blocks(5, 2, SIDE)),
        // A wrong label: a photo of another class.
        (6, 1) => Reply::ok(photos::blocks(7, 100, SIDE)),
        (7, 1) => Reply::ok(photos::blocks(7, 1, SIDE)).cut_off(),
        _ => Reply::ok(photos::blocks(class, number, SIDE)),
    }
}

/// A service with the API of Openverse, of which every page has five photos.
fn openverse() -> Web {
    Web::serve(|asked| {
        let host = asked.headers.iter().find_map(|line| line.strip_prefix("host: ")).expect("a host");
        if let Some(place) = asked.path.strip_prefix("/photo/") {
            let (class, number) = place.split_once('/').expect("a class and a number");
            return photo(class.parse().expect("a number"), number.trim_end_matches(".png").parse().expect("a number"));
        }
        let parameter = |name: &str| asked.path.split(['?', '&']).find_map(|part| part.strip_prefix(name));
        let class = CLASSES.iter().position(|class| parameter("q=") == Some(class)).expect("a class is searched for");
        let page: u32 = parameter("page=").expect("a page").parse().expect("a number");
        let results: Vec<Value> = ((page - 1) * 5..(page * 5).min(FOUND))
            .map(|number| {
                json!({
                    "url": format!("http://{host}/photo/{class}/{number}.png"), "title": format!("no. {number}"),
                    "creator": "Ann", "license": "by", "license_version": "4.0", "license_url": null,
                    "foreign_landing_url": format!("https://example.org/{class}/{number}"),
                })
            })
            .collect();
        Reply::ok(json!({ "result_count": FOUND, "page_count": 2, "page": page, "results": results }).to_string())
    })
}

/// A deployment whose worker knows that service as the provider `service`.
fn deploy(web: &Web, arguments: &[&str]) -> Deployment {
    let folder = tempfile::tempdir().expect("a temporary folder").keep();
    let file = format!("like = \"openverse\"\nendpoint = \"{}\"\ninterval_ms = 1\n", web.url("/v1/images/"));
    fs::write(folder.join("service.toml"), file).expect("the temporary folder is writable");
    let providers = ["--providers-dir".to_owned(), folder.display().to_string()];
    Deployment::start(Options {
        weights_dir: Some(cache("weights")),
        web: vec![web.address()],
        worker_arguments: providers.into_iter().chain(arguments.iter().map(|&argument| argument.to_owned())).collect(),
        ..Options::default()
    })
}

/// The arguments of a gathering of so many photos of each class.
fn gather(per_class: &'static str) -> impl Iterator<Item = &'static str> {
    let options = ["--per-class", per_class, "--provider", "service", "--allow-http"];
    ["gather", "zoo"].into_iter().chain(CLASSES).chain(options)
}

#[test]
fn ten_names_become_photos_a_model_and_the_class_of_one_photo() {
    let web = openverse();
    let deployment = deploy(&web, &[]);
    let hat = deployment.hat();

    let plan = hat.ok(gather("6").chain(["--dry-run"]));
    assert!(plan.contains("would ask service for 6 photos of each class") && web.asked().is_empty(), "{plan}");

    let answer = hat.run(gather("6"));
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    assert!(answer.stderr.contains("Openverse"), "what the provider asks for is shown: {}", answer.stderr);
    assert!(answer.stdout.contains("zoo@1"), "{}", answer.stdout);
    let first = hat.json(["datasets", "show", "zoo@1"]).remove(0)["manifest"].take();
    let counts = |class: &str| {
        let all = first["gathered"]["classes"].as_array().expect("a list");
        let of_class = all.iter().find(|counts| counts["class"] == class).expect("the class");
        ["asked", "found", "fetched", "kept"].map(|step| of_class[step].as_u64().expect("a count"))
    };
    assert_eq!(counts("ibis"), [6, 8, 6, 6]);
    assert_eq!(counts("asp"), [6, 8, 6, 6], "another photo was fetched instead of the page");
    assert_eq!(counts("cat"), [6, 8, 6, 5], "one cannot be decoded");
    assert_eq!(counts("dog"), [6, 8, 7, 6], "one was a copy");
    assert_eq!((counts("elk"), counts("fox")), ([6, 8, 6, 5], [6, 8, 6, 5]), "one was in both");
    let rows = hat.json(["datasets", "show", "zoo@1", "--sources"]);
    let row = |class: u32, number: u32| {
        let url = web.url(&format!("/photo/{class}/{number}.png"));
        rows.iter().find(|row| row["url"] == url.as_str()).expect("a row for each photo that was tried")
    };
    assert_eq!(row(8, 0)["outcome"], "kept");
    assert_eq!(
        (&row(8, 3)["rank"], &row(8, 3)["query"], &row(8, 3)["provider"]),
        (&json!(4), &json!("ibis"), &json!("service"))
    );
    assert_eq!((&row(8, 0)["author"], &row(8, 0)["licence"]), (&json!("Ann"), &json!("CC BY 4.0")));
    for (class, outcome, reason) in [
        (0, "failed", "a web page is there"),
        (1, "failed", "404"),
        (2, "rejected", "truncated"),
        (3, "rejected", "the same file as dog/"),
        (4, "rejected", "under two labels"),
        (7, "failed", "cannot be used"),
    ] {
        let row = row(class, 1);
        assert_eq!(row["outcome"], outcome, "{row}");
        assert!(row["reason"].as_str().is_some_and(|text| text.contains(reason)), "{row}");
    }

    // A second run adds what is new, and fetches nothing again that it has.
    let before = web.asked().len();
    hat.ok(gather("7"));
    let second = hat.json(["datasets", "show", "zoo"]).remove(0);
    assert_eq!((&second["name"], &second["manifest"]["gathered"]["added_to"]), (&json!("zoo@2"), &json!("zoo@1")));
    let again: Vec<Asked> = web.asked().split_off(before);
    let was_kept = |asked: &&Asked| {
        let url = web.url(&asked.path);
        rows.iter().any(|row| row["digest"].is_string() && row["url"] == url.as_str())
    };
    let refetched: Vec<_> = again.iter().filter(|asked| asked.path.starts_with("/photo/")).filter(was_kept).collect();
    assert!(refetched.is_empty(), "{refetched:?}");
    assert!(second["manifest"]["counts"]["accepted"].as_u64() > first["counts"]["accepted"].as_u64());
    let nothing = hat.run(gather("7").take(5).chain(gather("1").skip(12)));
    assert!(nothing.stderr.contains("nothing new was found"), "{}", nothing.stderr);

    hat.ok(["finetune", "zoo", "--recipe", "fast", "--size", "64"]);
    let report = deployment.folder().join("report.html");
    let words = hat.ok(["evaluate", "zoo/1", "--report", report.to_str().expect("UTF-8")]);
    assert!(words.contains("held-out photos of zoo@2"), "{words}");
    let own = deployment.folder().join("own.png");
    fs::write(&own, photos::blocks(2, 77, SIDE)).expect("the temporary folder is writable");
    let words = hat.ok(["classify".as_ref(), "zoo/1".as_ref(), own.as_os_str()]);
    assert!(words.starts_with("The most resembling class is cat"), "{words}");
}

/// A gate that keeps requests waiting until it is opened.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn pass(&self) {
        self.1.wait_while(&mut self.0.lock(), |open| !*open);
    }

    fn open(&self) {
        *self.0.lock() = true;
        self.1.notify_all();
    }
}

#[test]
fn a_gathering_whose_worker_is_killed_goes_on_without_fetching_again_what_it_has() {
    const FIRST: u32 = 32;
    let gate = Arc::<Gate>::default();
    let web = Web::serve({
        let gate = gate.clone();
        move |asked| {
            let Some(place) = asked.path.strip_prefix("/list/") else { return Reply::status("404 Not Found") };
            let number: u32 = place.parse().expect("a number");
            if number >= FIRST {
                gate.pass();
            }
            Reply::ok(photos::blocks(number % 2, number, SIDE))
        }
    });
    let mut deployment = deploy(&web, &[]);
    let rows = (0..FIRST + 8)
        .map(|number| format!("{},{}\n", CLASSES[number as usize % 2], web.url(&format!("/list/{number}"))));
    let table: String = std::iter::once("class,url\n".to_owned()).chain(rows).collect();
    fs::write(deployment.folder().join("urls.csv"), table).expect("the temporary folder is writable");
    let hat = deployment.hat();
    let refused = hat.ok(["gather", "pair", "--urls", "urls.csv", "--dry-run"]);
    assert!(refused.contains("it is http"), "{refused}");
    let job = hat.json(["--detach", "gather", "pair", "--urls", "urls.csv", "--allow-http"]);
    let job = job[0]["id"].as_str().expect("a job has an id").to_owned();
    wait_until("the first photos to be told of", || {
        let shown = hat.json(["jobs", "show", &job]).remove(0);
        (shown["progress"]["done"] == FIRST).then_some(())
    });
    deployment.kill_and_replace(Victim::Worker);
    gate.open();
    hat.ok(["jobs", "watch", &job]);
    for number in 0..FIRST {
        let times = web.asked().iter().filter(|asked| asked.path == format!("/list/{number}")).count();
        assert_eq!(times, 1, "photo {number}");
    }
    assert_eq!(hat.json(["datasets", "show", "pair@1"])[0]["manifest"]["counts"]["accepted"], FIRST + 8);
}

#[test]
fn nobody_gathers_where_the_operator_does_not_allow_it() {
    let web = openverse();
    let deployment = deploy(&web, &["--gather", "nobody"]);
    let answer = deployment.hat().run(gather("2"));
    assert_ne!(answer.code, 0);
    assert!(answer.stderr.contains("does not allow the tenant local to gather"), "{}", answer.stderr);
    assert!(web.asked().is_empty(), "nobody was asked");
}
