//! The fetcher against real servers on loopback: who is never asked, and what comes of every kind of answer.

use std::{
    io,
    net::{IpAddr, TcpListener},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use futures::{FutureExt as _, future::BoxFuture};

use super::*;
use web::{Asked, Reply, Web};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\nand the rest";
const HTTP: How = How { allows_http: true, asks_robots: false };

/// Names of a test, and how often they were looked up.
#[derive(Default)]
struct Names {
    lookups: AtomicUsize,
}

impl Lookup for Arc<Names> {
    fn lookup<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        let before = self.lookups.fetch_add(1, Ordering::SeqCst);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let addresses = match name.trim_end_matches('.') {
            "photos.test" => vec![ip("127.0.0.1")],
            // The first answer is a public address, and each further one is private.
            "changing.test" if before == 0 => vec![ip("192.0.78.12")],
            "changing.test" | "loopback.test" | "localhost.localdomain" => vec![ip("127.0.0.1")],
            "mixed.test" => vec![ip("1.1.1.1"), ip("10.0.0.1")],
            "metadata.google.internal" => vec![ip("169.254.169.254")],
            "mapped.test" => vec![ip("::ffff:127.0.0.1")],
            "printer.local" => vec![ip("192.168.1.9")],
            _ => return async { Err(io::Error::other("no such name")) }.boxed(),
        };
        async move { Ok(addresses) }.boxed()
    }
}

/// A fetcher that may ask these servers, and no other of this machine.
pub(super) fn fetcher(servers: &[&Web]) -> Fetcher {
    fetcher_with(servers, Arc::default())
}

fn fetcher_with(servers: &[&Web], names: Arc<Names>) -> Fetcher {
    let allowance = Allowance::of(servers.iter().map(|server| server.address()));
    let options = FetchOptions { contact: "mailto:ann@example.org".to_owned(), allowance };
    let mut fetcher = Fetcher::with_lookup(&options, Box::new(names)).unwrap();
    let shared = Arc::get_mut(&mut fetcher.0).unwrap();
    (shared.longest_fetch, shared.first_pause) = (Duration::from_millis(500), Duration::from_millis(1));
    fetcher
}

/// The spellings of private addresses, and of what is no address of the web. `PORT` is one on which this machine listens.
const REFUSED: [&str; 46] = [
    "http://127.0.0.1:PORT/",
    "http://127.1:PORT/",
    "http://127.0.1:PORT/",
    "http://2130706433:PORT/",
    "http://017700000001:PORT/",
    "http://0177.0.0.1:PORT/",
    "http://0x7f000001:PORT/",
    "http://0x7f.0x0.0x0.0x1:PORT/",
    "http://0x7F.1:PORT/",
    "http://127.0.0.1.:PORT/",
    "http://0:PORT/",
    "http://0.0.0.0:PORT/",
    "http://[::]:PORT/",
    "http://[::1]:PORT/",
    "http://[0:0:0:0:0:0:0:1]:PORT/",
    "http://[::ffff:127.0.0.1]:PORT/",
    "http://[::ffff:7f00:1]:PORT/",
    "http://[::127.0.0.1]:PORT/",
    "http://[64:ff9b::127.0.0.1]:PORT/",
    "http://[64:ff9b:1::7f00:1]:PORT/",
    "http://[2002:7f00:1::]:PORT/",
    "http://[2001:0:7f00:1::]:PORT/",
    "http://[fe80::1]:PORT/",
    "http://[fd00:ec2::254]/",
    "http://\u{ff11}\u{ff12}\u{ff17}.0.0.1:PORT/",
    "http://127\u{3002}0\u{3002}0\u{3002}1:PORT/",
    "http://%31%32%37.0.0.1:PORT/",
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://100.100.100.200/",
    "http://168.63.129.16/",
    "http://10.1.2.3/",
    "http://172.16.0.1/",
    "http://192.168.0.1/",
    "http://localhost:PORT/",
    "http://LOCALHOST.:PORT/",
    "http://intranet/",
    "http://loopback.test:PORT/",
    "http://localhost.localdomain:PORT/",
    "http://mapped.test:PORT/",
    "http://mixed.test/",
    "http://metadata.google.internal/",
    "http://printer.local/",
    "http://photos.test@127.0.0.1:PORT/",
    "http://photos.test:PORT/",
];

#[tokio::test]
async fn whatever_a_private_address_is_spelled_like_nothing_is_sent_to_it() {
    let inside = TcpListener::bind("127.0.0.1:0").unwrap();
    inside.set_nonblocking(true).unwrap();
    let port = inside.local_addr().unwrap().port().to_string();
    let front = Web::serve({
        let port = port.clone();
        move |asked| {
            let number: usize = asked.path.trim_matches('/').parse().unwrap();
            Reply::elsewhere(REFUSED[number].replace("PORT", &port))
        }
    });
    let fetcher = fetcher(&[&front]);
    for (number, spelling) in REFUSED.iter().enumerate() {
        let url = spelling.replace("PORT", &port);
        for how in [HTTP, How { asks_robots: true, ..HTTP }] {
            let error = fetcher.photo(&url, how).await.unwrap_err();
            assert!(matches!(error, FetchError::NotPublic { .. } | FetchError::BadUrl(_)), "{url}: {error}");
        }
        let error = fetcher.photo(&front.url(&format!("/{number}")), HTTP).await.unwrap_err();
        assert!(matches!(error, FetchError::NotPublic { .. } | FetchError::BadUrl(_)), "a redirect to {url}: {error}");
    }
    let came = inside.accept().map(|_| ()).unwrap_err();
    assert_eq!(came.kind(), io::ErrorKind::WouldBlock, "nobody has connected");
}

#[tokio::test]
async fn a_name_is_looked_up_once_for_a_connection_and_what_was_checked_is_connected_to() {
    let inside = TcpListener::bind("127.0.0.1:0").unwrap();
    inside.set_nonblocking(true).unwrap();
    let port = inside.local_addr().unwrap().port();
    let names = Arc::<Names>::default();
    let fetcher = fetcher_with(&[], names.clone());
    let target = Target::parse(&format!("http://changing.test:{port}/"), true).unwrap();
    let checked = target.addresses(&*fetcher.0.lookup, &fetcher.0.allowance).await.unwrap();
    assert_eq!(checked, [format!("192.0.78.12:{port}").parse().unwrap()], "these are what `exchange::ask` connects to");
    let error = fetcher.photo(&format!("http://changing.test:{port}/"), HTTP).await.unwrap_err();
    assert!(matches!(error, FetchError::NotPublic { .. }), "its next answer is private: {error}");
    assert_eq!(names.lookups.load(Ordering::SeqCst), 2, "once for each connection");
    assert_eq!(inside.accept().map(|_| ()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    // The same host may be asked on one port and not on another, to which it redirects.
    let outside = Web::serve(move |_| Reply::elsewhere(format!("http://photos.test:{port}/a.png")));
    let fetcher = fetcher_with(&[&outside], Arc::default());
    let url = format!("http://photos.test:{}/", outside.address().port());
    assert!(matches!(fetcher.photo(&url, HTTP).await, Err(FetchError::NotPublic { .. })));
    assert_eq!(inside.accept().map(|_| ()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn what_is_no_url_of_the_web_is_refused_by_its_text() {
    let fetcher = fetcher(&[]);
    for (url, says) in [
        ("photo.jpg", "relative URL"),
        ("ftp://photos.test/a.jpg", "ftp: is not https:"),
        ("file:///etc/passwd", "file: is not https:"),
        ("gopher://photos.test/", "gopher: is not https:"),
        ("https://ann:secret@photos.test/", "a user name or a password"),
        ("https://photos.test:22/", "port 22"),
        ("https://", "empty host"),
    ] {
        let error = fetcher.photo(url, HTTP).await.unwrap_err().to_string();
        assert!(error.contains(says), "{url}: {error}");
    }
    let error = fetcher.photo("http://1.1.1.1/a.jpg", How::default()).await.unwrap_err();
    assert_eq!(error, FetchError::Insecure);
}

/// What a server answers that does as hosts do.
fn host(asked: &Asked, before: usize) -> Reply {
    match asked.path.as_str() {
        "/a.png" | "/open/a.png" | "/a.png?size=2" => Reply::ok(PNG),
        "/unmeasured.png" => Reply::ok(PNG).unmeasured(),
        "/relative" => Reply::elsewhere("a.png?size=2"),
        "/loop" => Reply::elsewhere("/loop"),
        "/nowhere" => Reply::status("302 Found"),
        "/page.jpg" => Reply::ok("<!DOCTYPE html><html>Log in</html>").with("content-type: image/jpeg"),
        "/empty.jpg" => Reply::ok(""),
        "/drawing.svg" => Reply::ok("<svg width=\"1\"/>"),
        "/text.jpg" => Reply::ok("text"),
        "/cut.png" => Reply::ok(PNG).cut_off(),
        "/large.png" => Reply::ok("").with(format!("content-length: {}", MAX_FETCHED_BYTES + 1)).unmeasured(),
        "/endless.png" => Reply::ok([PNG, &vec![0; MAX_FETCHED_BYTES as usize]].concat()).unmeasured(),
        "/silent.png" => Reply::silence(),
        "/gone.png" => Reply::status("404 Not Found"),
        "/broken.png" => Reply::status("500 Internal Server Error"),
        "/busy.png" => Reply::status("429 Too Many Requests").with("retry-after: 3600"),
        "/soon.png" if before < 2 => Reply::status("503 Service Unavailable").with("retry-after: 0"),
        "/soon.png" => Reply::ok(PNG),
        "/robots.txt" => Reply::ok("user-agent: *\ndisallow: /\nallow: /open/\n"),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn every_kind_of_answer_is_a_photo_or_a_reason() {
    let times = Mutex::new(HashMap::<String, usize>::new());
    let server = Web::serve(move |asked| {
        let mut times = times.lock();
        let before = times.entry(asked.path.clone()).or_default();
        let reply = host(asked, *before);
        *before += 1;
        reply
    });
    let fetcher = fetcher(&[&server]);
    for (path, tries, says) in [
        ("/a.png", 1, ""),
        ("/unmeasured.png", 1, ""),
        ("/relative", 1, ""),
        ("/soon.png", 3, ""),
        ("/loop", 6, "more than 5 redirects"),
        ("/nowhere", 1, "does not say where to"),
        ("/page.jpg", 1, "a web page is there and no photo"),
        ("/empty.jpg", 1, "no photo is there"),
        ("/drawing.svg", 1, "svg"),
        ("/text.jpg", 1, "no photo is there"),
        ("/cut.png", 3, "cannot be used"),
        ("/large.png", 1, "more than 33554432 bytes"),
        ("/endless.png", 1, "more than 33554432 bytes"),
        ("/silent.png", 3, "no whole answer"),
        ("/gone.png", 1, "404"),
        ("/broken.png", 3, "500"),
    ] {
        let fetched = fetcher.photo(&server.url(path), HTTP).await;
        match (&fetched, says) {
            (Ok(fetched), "") => assert_eq!(fetched.bytes, PNG, "{path}"),
            (Err(error), says) if !says.is_empty() => assert!(error.to_string().contains(says), "{path}: {error}"),
            (fetched, _) => panic!("{path}: {fetched:?}"),
        }
        assert_eq!(server.count(path), tries + usize::from(path == "/a.png" && server.count("/a.png?") > 0), "{path}");
    }
    let secure = server.url("/a.png").replace("http:", "https:");
    let error = fetcher.photo(&secure, How::default()).await.unwrap_err();
    assert!(matches!(error, FetchError::Unreachable { .. }), "it speaks no TLS: {error}");
    let agents: Vec<_> = server.asked().into_iter().map(|asked| asked.headers).collect();
    let agent = format!("user-agent: sortinghat/{} (mailto:ann@example.org)", env!("CARGO_PKG_VERSION"));
    assert!(agents.iter().all(|headers| headers.contains(&agent)), "{agents:?}");
}

#[tokio::test]
async fn a_host_that_asks_for_a_long_pause_is_not_asked_again() {
    let server = Web::serve(|asked| host(asked, 0));
    let fetcher = fetcher(&[&server]);
    let error = fetcher.photo(&server.url("/busy.png"), HTTP).await.unwrap_err();
    assert_eq!((error, server.count("/")), (FetchError::Busy { pause: Duration::from_secs(3600) }, 1));
    let error = fetcher.photo(&server.url("/a.png"), HTTP).await.unwrap_err();
    assert!(matches!(error, FetchError::GivenUp { .. }) && server.count("/") == 1, "{error}");
}

#[tokio::test]
async fn the_rules_for_robots_are_asked_once_for_urls_that_no_provider_has_published() {
    let server = Web::serve(|asked| host(asked, 0));
    let fetcher = fetcher(&[&server]);
    let robots = How { asks_robots: true, ..HTTP };
    for _ in 0..2 {
        let error = fetcher.photo(&server.url("/a.png"), robots).await.unwrap_err();
        assert!(matches!(error, FetchError::Robots { .. }), "{error}");
        assert_eq!(fetcher.photo(&server.url("/open/a.png"), robots).await.unwrap().bytes, PNG);
    }
    assert_eq!((server.count("/robots.txt"), server.count("/a.png"), server.count("/open/")), (1, 0, 2));
    fetcher.photo(&server.url("/a.png"), HTTP).await.expect("a provider has published it");
    let without = Web::serve(|asked| match asked.path.as_str() {
        "/robots.txt" => Reply::status("404 Not Found"),
        _ => Reply::ok(PNG),
    });
    self::fetcher(&[&without])
        .photo(&without.url("/a.png"), robots)
        .await
        .expect("a host without rules forbids nothing");
}

#[tokio::test]
async fn a_host_whose_rules_could_not_be_had_is_asked_for_them_again() {
    let is_back = Arc::new(AtomicBool::new(false));
    let server = Web::serve({
        let is_back = is_back.clone();
        move |asked| match asked.path.as_str() {
            "/robots.txt" if is_back.load(Ordering::SeqCst) => Reply::ok("User-agent: *\nAllow: /\n"),
            "/robots.txt" => Reply::status("500 Internal Server Error"),
            _ => Reply::ok(PNG),
        }
    });
    let fetcher = fetcher(&[&server]);
    let robots = How { asks_robots: true, ..HTTP };
    let error = fetcher.photo(&server.url("/a.png"), robots).await.unwrap_err();
    assert!(error.is_transient(), "nobody has forbidden it: {error}");
    assert_eq!(server.count("/a.png"), 0, "as long as nobody knows, it is not fetched");
    is_back.store(true, Ordering::SeqCst);
    fetcher.photo(&server.url("/a.png"), robots).await.expect("the host is well again");
}

#[test]
fn a_contact_that_no_header_can_hold_is_refused() {
    let options = FetchOptions { contact: "ann\n".to_owned(), ..FetchOptions::default() };
    assert!(Fetcher::new(&options).err().unwrap().contains("contact"));
}
