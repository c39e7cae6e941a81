//! Each provider against a server on loopback that answers as its documented API does, and as it should not.

use std::{fs, path::Path};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::fetch::{
    tests::fetcher,
    web::{Asked, Reply, Web},
};

const ANY: Search<'_> = Search { query: "a cat", licence: Licence::Any };

/// The providers with one file, `it.toml`.
fn providers(content: &str) -> Result<Providers, FileError> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("it.toml"), content).unwrap();
    fs::write(folder.path().join("README.md"), "not a provider").unwrap();
    fs::write(folder.path().join("key"), "secret\n").unwrap();
    let providers = Providers::open(folder.path());
    // The key is read for every question.
    std::mem::forget(folder);
    providers
}

fn of_kind(like: &str, server: &Web) -> Providers {
    providers(&format!("like = \"{like}\"\nendpoint = \"{}\"\ninterval_ms = 1\n", server.url("/api"))).unwrap()
}

async fn search(
    providers: &Providers,
    server: &Web,
    search: Search<'_>,
    cursor: Option<&str>,
) -> Result<Page, SearchError> {
    providers.search(&fetcher(&[server]), "it", &search, cursor).await
}

/// Whether the query of a request has this parameter.
fn has(asked: &Asked, parameter: &str) -> bool {
    asked.path.split(['?', '&']).any(|part| part == parameter)
}

fn photo(number: u32) -> Value {
    json!({
        "id": "x", "title": format!("Cat {number}"), "url": format!("https://photos.test/{number}.jpg"),
        "foreign_landing_url": "https://photos.test/page", "creator": "Ann", "license": "by-sa", "license_version": "2.0",
        "license_url": "https://creativecommons.org/licenses/by-sa/2.0/", "mature": false, "tags": [],
    })
}

#[tokio::test]
async fn openverse_is_asked_page_by_page_for_what_the_licence_says() {
    let server = Web::serve(|_| {
        let answer =
            json!({ "result_count": 41, "page_count": 3, "page_size": 20, "page": 1, "results": [photo(1), photo(2)] });
        Reply::ok(answer.to_string())
    });
    let it = of_kind("openverse", &server);
    let first = search(&it, &server, ANY, None).await.unwrap();
    let credit = Credit {
        source_page: Some("https://photos.test/page".into()),
        title: Some("Cat 1".into()),
        author: Some("Ann".into()),
        licence: Some("CC BY-SA 2.0".into()),
        licence_url: Some("https://creativecommons.org/licenses/by-sa/2.0/".into()),
    };
    assert_eq!(first.found[0], Found { url: "https://photos.test/1.jpg".into(), credit });
    assert!(first.terms.contains("Openverse"));
    assert_eq!((first.found.len(), first.next.as_deref()), (2, Some("2")));
    let free = Search { licence: Licence::Free, ..ANY };
    assert_eq!(search(&it, &server, free, Some("3")).await.unwrap().next, None, "the third of three pages");
    search(&it, &server, Search { licence: Licence::By, ..ANY }, Some("2")).await.unwrap();
    let asked = server.asked();
    assert!(has(&asked[0], "q=a+cat") && has(&asked[0], "page_size=20") && has(&asked[0], "page=1"), "{asked:?}");
    assert!(!asked[0].path.contains("license"), "{asked:?}");
    assert!(has(&asked[1], "license_type=commercial%2Cmodification") && has(&asked[1], "page=3"), "{asked:?}");
    assert!(has(&asked[2], "license=by%2Ccc0%2Cpdm"), "{asked:?}");
    let deep = Openverse::default().read(
        &ANY,
        Some("20"),
        json!({"page_count": 500, "results": [photo(1)]}).to_string().as_bytes(),
    );
    assert_eq!(deep.unwrap().next, None, "no deeper than its terms allow");
}

#[tokio::test]
async fn a_provider_that_does_not_answer_as_it_should_is_told_from_one_that_may_answer_later() {
    for (reply, is_transient, says) in [
        (Reply::ok("<html>Maintenance</html>"), false, "is a web page"),
        (Reply::ok("{\"results\": \"none\"}"), false, "something else"),
        (Reply::ok("[1,2]"), false, "something else"),
        (Reply::ok("{\"results\": [{\"url\": 7}]}"), false, "something else"),
        (Reply::ok(json!({ "results": [photo(1)] }).to_string()).cut_off(), true, "cannot be used"),
        (Reply::status("401 Unauthorized"), false, "401"),
        (Reply::status("400 Bad Request"), false, "400"),
        (Reply::status("429 Too Many Requests").with("retry-after: 3600"), true, "3600 s"),
        (Reply::status("500 Internal Server Error"), true, "500"),
        (Reply::elsewhere("/api"), false, "redirects"),
        (Reply::silence(), true, "no whole answer"),
    ] {
        let shown = format!("{reply:?}");
        let server = Web::serve(move |_| reply.clone());
        let error = search(&of_kind("openverse", &server), &server, ANY, None).await.unwrap_err();
        assert_eq!(matches!(error, SearchError::Unavailable(_)), is_transient, "{shown}: {error}");
        assert!(error.to_string().starts_with("it: ") && error.to_string().contains(says), "{shown}: {error}");
    }
}

fn wiki_page(index: u32, licence: &str, name: &str) -> Value {
    json!({
        "pageid": index, "ns": 6, "title": format!("File:Cat {index}.jpg"), "index": index, "imagerepository": "local",
        "imageinfo": [{
            "thumburl": format!("https://photos.test/1280px-{index}.jpg"), "url": "https://photos.test/original.tif",
            "descriptionurl": "https://commons.test/page",
            "extmetadata": {
                "Artist": { "value": "<a href=\"//x\">Ann</a>", "source": "commons-desc-page" },
                "License": { "value": licence }, "LicenseShortName": { "value": name },
            },
        }],
    })
}

#[tokio::test]
async fn a_wiki_is_asked_politely_and_its_pages_follow_its_own_order() {
    let server = Web::serve(|asked| {
        let pages = match has(asked, "gsroffset=50") {
            true => json!([wiki_page(51, "cc0", "CC0")]),
            false => json!([wiki_page(2, "cc-by-sa-4.0", "CC BY-SA 4.0"), wiki_page(1, "cc-by-4.0", "CC BY 4.0")]),
        };
        let mut answer = json!({ "batchcomplete": true, "query": { "pages": pages } });
        if !has(asked, "gsroffset=50") {
            answer["continue"] = json!({ "gsroffset": 50, "continue": "gsroffset||" });
        }
        Reply::ok(answer.to_string())
    });
    let it = of_kind("mediawiki", &server);
    let first = search(&it, &server, ANY, None).await.unwrap();
    assert_eq!((first.found[0].url.as_str(), first.next.as_deref()), ("https://photos.test/1280px-1.jpg", Some("50")));
    let credit = &first.found[0].credit;
    assert_eq!((credit.author.as_deref(), credit.licence.as_deref()), (Some("Ann"), Some("CC BY 4.0")));
    assert_eq!(
        (credit.title.as_deref(), credit.source_page.as_deref()),
        (Some("Cat 1.jpg"), Some("https://commons.test/page"))
    );
    assert_eq!(search(&it, &server, ANY, Some("50")).await.unwrap().next, None);
    let by = search(&it, &server, Search { licence: Licence::By, ..ANY }, None).await.unwrap();
    assert_eq!(by.found.len(), 1, "CC BY-SA asks for more than the name");
    let asked = &server.asked()[0];
    for parameter in ["maxlag=5", "gsrsearch=filetype%3Abitmap+a+cat", "gsrnamespace=6", "iiurlwidth=1280"] {
        assert!(has(asked, parameter), "{parameter}: {asked:?}");
    }
    let empty = MediaWiki::default().read(&ANY, None, b"{\"batchcomplete\":true}").unwrap();
    assert_eq!((empty.found.len(), empty.next), (0, None), "nothing was found");
}

#[tokio::test]
async fn a_wiki_whose_servers_are_behind_is_asked_again_and_other_errors_of_its_api_are_told() {
    let left = Mutex::new(2);
    let lag = json!({ "error": { "code": "maxlag", "info": "Waiting for db1: 7 seconds lagged", "lag": 7 } });
    let server = Web::serve(move |_| {
        let mut left = left.lock();
        if *left > 0 {
            *left -= 1;
            return Reply::ok(lag.to_string()).with("retry-after: 5");
        }
        Reply::ok(json!({ "query": { "pages": [wiki_page(1, "pd", "Public domain")] } }).to_string())
    });
    let found = search(&of_kind("mediawiki", &server), &server, ANY, None).await.unwrap();
    assert_eq!((found.found.len(), server.count("/api")), (1, 3));
    for (code, is_transient) in [("maxlag", true), ("ratelimited", true), ("badvalue", false)] {
        let answer = json!({ "error": { "code": code, "info": "why" } }).to_string();
        let server = Web::serve(move |_| Reply::ok(answer.clone()));
        let error = search(&of_kind("mediawiki", &server), &server, ANY, None).await.unwrap_err();
        assert_eq!(matches!(error, SearchError::Unavailable(_)), is_transient, "{code}: {error}");
    }
}

/// A provider file with everything that one can have.
fn described(server: &Web) -> String {
    format!(
        r#"
        endpoint = "{}"
        terms = "provided by It"
        interval_ms = 1
        [key]
        file = "key"
        header = "authorization"
        prefix = "Key "
        [request]
        query = "query"
        parameters = {{ orientation = "square" }}
        [licence]
        free = {{ use = "commercial" }}
        [paging]
        parameter = "start"
        first = 0
        step = 10
        pages = 2
        [answer]
        photos = "/data/items"
        url = "/image/large"
        author = "/by/name"
        source_page = "/page"
        every_licence = "It's own"
        "#,
        server.url("/api")
    )
}

#[tokio::test]
async fn a_provider_is_asked_and_read_as_its_file_describes_it() {
    let item = json!({ "image": { "large": "https://photos.test/1.jpg" }, "by": { "name": " Ann " }, "page": 7 });
    let answer = json!({ "data": { "items": [item, { "image": {} }] } }).to_string();
    let server = Web::serve(move |_| Reply::ok(answer.clone()));
    let it = providers(&described(&server)).unwrap();
    let free = Search { licence: Licence::Free, ..ANY };
    let page = search(&it, &server, free, None).await.unwrap();
    let credit = Credit { author: Some("Ann".into()), licence: Some("It's own".into()), ..Credit::default() };
    assert_eq!(
        page.found,
        [Found { url: "https://photos.test/1.jpg".into(), credit }],
        "an item without a URL is none"
    );
    assert_eq!((page.next.as_deref(), page.terms.as_str()), (Some("2"), "provided by It"));
    assert_eq!(search(&it, &server, free, Some("2")).await.unwrap().next, None, "its file allows two pages");
    let asked = server.asked();
    assert!(["query=a+cat", "orientation=square", "use=commercial", "start=0"].iter().all(|part| has(&asked[0], part)));
    assert!(
        has(&asked[1], "start=10") && asked[0].headers.contains(&"authorization: key secret".to_owned()),
        "{asked:?}"
    );
    let error = search(&it, &server, Search { licence: Licence::By, ..ANY }, None).await.unwrap_err();
    assert!(error.to_string().contains("licence by"), "{error}");
    let other = Web::serve(|_| Reply::ok("{\"data\": []}"));
    let error = search(&providers(&described(&other)).unwrap(), &other, ANY, None).await.unwrap_err();
    assert!(error.to_string().contains("no list at /data/items"), "{error}");
}

#[tokio::test]
async fn a_key_is_shown_to_its_provider_alone() {
    let thief = Web::serve(|_| Reply::ok("{}"));
    let elsewhere = thief.url("/steal");
    let server = Web::serve(move |_| Reply::elsewhere(&elsewhere));
    let it = providers(&described(&server)).unwrap();
    let error = it.search(&fetcher(&[&server, &thief]), "it", &ANY, None).await.unwrap_err();
    assert!(error.to_string().contains("its key is not shown"), "{error}");
    assert_eq!(thief.asked(), []);
    let parameter = described(&server)
        .replace("header = \"authorization\"", "parameter = \"key\"")
        .replace("prefix = \"Key \"", "");
    search(&providers(&parameter).unwrap(), &server, ANY, None).await.unwrap_err();
    assert!(server.asked().iter().any(|asked| has(asked, "key=secret")));
    let missing = described(&server).replace("\"key\"", "\"/nonexistent/key\"");
    let error = search(&providers(&missing).unwrap(), &server, ANY, None).await.unwrap_err();
    assert!(!error.to_string().contains("nonexistent"), "its path is the operator's: {error}");
}

#[tokio::test]
async fn a_file_that_says_too_little_or_too_much_is_refused_with_its_name() {
    let server = Web::serve(|_| Reply::ok("{}"));
    let whole = described(&server);
    let lacks_answer = whole.split("[answer]").next().unwrap().to_owned();
    for (content, says) in [
        (lacks_answer.as_str(), "it has no [answer]"),
        (&whole.replace("/data/items", "data.items"), "no JSON pointer"),
        (&whole.replace("free =", "gratis ="), "[licence] has gratis"),
        (&whole.replace("header = \"authorization\"", ""), "either a header or a parameter"),
        ("like = \"openverse\"\nterms = \"x\"", "no more than endpoint"),
        ("like = \"google\"", "unknown variant"),
        ("url = \"x\"", "unknown field"),
        ("endpoint = 7", "invalid type"),
    ] {
        let error = providers(content).err().unwrap().to_string();
        assert!(error.contains("it.toml") && error.contains(says), "{says}: {error}");
    }
    let unknown =
        providers("like = \"openverse\"").unwrap().search(&fetcher(&[]), "other", &ANY, None).await.unwrap_err();
    assert!(unknown.to_string().contains("only commons, it, openverse"), "{unknown}");
    assert!(Providers::open(Path::new("/nonexistent")).is_ok(), "there need not be a folder");
}

#[test]
fn the_examples_in_the_documentation_can_be_used() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/gathering.md")).unwrap();
    let examples: Vec<&str> = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(examples.len() >= 2, "{examples:?}");
    for example in examples {
        providers(example).map(|_| ()).unwrap_or_else(|error| panic!("{error}:\n{example}"));
    }
}
