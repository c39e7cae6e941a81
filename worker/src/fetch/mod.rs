//! Fetches URLs for jobs, in the worker's process, since an executor has no network.
//!
//! A URL may be anybody's. So it is https unless the job says otherwise, its host is looked up once and connected to only if every address
//! of it is public (`address`), and each redirect is checked like the first URL. There are bounds on bytes, time, redirects, and
//! requests to one host and in all (`manners`). What comes is kept only if its first bytes are those of a photo; nothing is decoded here.

mod address;
mod error;
mod exchange;
mod manners;
pub(crate) mod providers;
mod rights;
mod robots;
mod target;
#[cfg(test)]
mod tests;
#[allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "a server for tests, which uses the rest of it elsewhere"
)]
#[cfg(test)]
#[path = "../../../tests/src/web.rs"]
mod web;

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use sortinghat_photos::{DecodeError, ImageFormat};
use sortinghat_proto::limits::MAX_FETCHED_BYTES;
use tokio::{sync::OnceCell, time::timeout};
use tokio_rustls::TlsConnector;

pub use address::Allowance;
pub(crate) use error::FetchError;
use exchange::Answer;
use manners::{LONGEST_PAUSE, Manners, Place};
pub use rights::Rights;
use robots::Rules;
use target::{Lookup, SystemLookup, Target};

/// The name by which hosts know us in their rules for robots.
const ROBOT: &str = "sortinghat";
/// Where who runs a host finds out who we are, unless the operator names another place.
pub const DEFAULT_CONTACT: &str = "https://github.com/sortinghat/sortinghat";
/// How long one request may take, once it has its place.
const LONGEST_FETCH: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 5;
/// How often a URL is asked for that does not answer as it should.
const TRIES: u32 = 3;
/// The pause before another try, where the host asks for none; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Bytes of an answer of a provider.
const MAX_ANSWER_BYTES: u64 = 8 << 20;
/// Bytes of the rules for robots that are read, as RFC 9309 asks for.
const MAX_ROBOTS_BYTES: u64 = 500 << 10;
/// Hosts whose rules are remembered.
const MAX_RULES: usize = 1000;

/// How the worker fetches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FetchOptions {
    /// Where who runs a host finds out who we are; empty for the place of this software.
    pub contact: String,
    /// For tests: addresses of this machine that may be fetched from.
    pub allowance: Allowance,
}

/// How one URL is fetched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct How {
    /// Over http as well.
    pub(crate) allows_http: bool,
    /// The rules for robots of its host are asked first.
    pub(crate) asks_robots: bool,
}

/// A question to a provider.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) url: String,
    pub(crate) headers: HeaderMap,
    /// The time between two questions.
    pub(crate) interval: Duration,
}

/// Fetches URLs. Cheap to clone; all clones share the places at hosts.
#[derive(Clone)]
pub(crate) struct Fetcher(Arc<Shared>);

struct Shared {
    user_agent: HeaderValue,
    allowance: Allowance,
    lookup: Box<dyn Lookup>,
    manners: Manners,
    tls: OnceLock<Result<TlsConnector, String>>,
    rules: Mutex<HashMap<String, Arc<OnceCell<Rules>>>>,
    longest_fetch: Duration,
    first_pause: Duration,
}

/// What is asked for, and how much of it.
struct Wanted<'a> {
    headers: &'a HeaderMap,
    limit: u64,
    interval: Duration,
    how: How,
}

impl Fetcher {
    /// A fetcher with the resolver of the system.
    ///
    /// # Errors
    /// A message, if the contact cannot be sent.
    pub(crate) fn new(options: &FetchOptions) -> Result<Self, String> {
        Self::with_lookup(options, Box::new(SystemLookup))
    }

    fn with_lookup(options: &FetchOptions, lookup: Box<dyn Lookup>) -> Result<Self, String> {
        let contact = if options.contact.is_empty() { DEFAULT_CONTACT } else { &options.contact };
        let user_agent = format!("{ROBOT}/{} ({contact})", env!("CARGO_PKG_VERSION"));
        let user_agent = HeaderValue::from_str(&user_agent);
        let user_agent = user_agent.map_err(|_| format!("the contact {contact:?} cannot be sent in a header"))?;
        Ok(Self(Arc::new(Shared {
            user_agent,
            allowance: options.allowance.clone(),
            lookup,
            manners: Manners::default(),
            tls: OnceLock::new(),
            rules: Mutex::default(),
            longest_fetch: LONGEST_FETCH,
            first_pause: FIRST_PAUSE,
        })))
    }

    /// Fetches a photo, which nobody has decoded.
    ///
    /// # Errors
    /// [`FetchError`].
    pub(crate) async fn photo(&self, url: &str, how: How) -> Result<Fetched, FetchError> {
        let target = Target::parse(url, how.allows_http)?;
        let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("image/*"))]);
        let wanted = Wanted { headers: &headers, limit: MAX_FETCHED_BYTES, interval: Duration::ZERO, how };
        let fetched = self.persist(&target, &wanted).await?;
        ImageFormat::sniff(&fetched.bytes).map_err(|error| FetchError::NotAPhoto(no_photo(&fetched.bytes, &error)))?;
        Ok(fetched)
    }

    /// Asks a provider, whose answer is text.
    ///
    /// # Errors
    /// [`FetchError`].
    pub(crate) async fn ask(&self, question: &Question) -> Result<Bytes, FetchError> {
        // An address of this machine, which only a test allows, has no certificate.
        let allows_http = !self.0.allowance.is_empty();
        let target = Target::parse(&question.url, allows_http)?;
        let (headers, interval) = (&question.headers, question.interval);
        // What a provider is shown, nobody else is shown: a redirect is not followed with it.
        let how = How { allows_http, asks_robots: false };
        let answer = self.persist(&target, &Wanted { headers, limit: MAX_ANSWER_BYTES, interval, how }).await?;
        Ok(answer.bytes)
    }

    /// Fetches a URL again while another try may help.
    async fn persist(&self, target: &Target, wanted: &Wanted<'_>) -> Result<Fetched, FetchError> {
        let mut pause = self.0.first_pause;
        for _ in 1..TRIES {
            match self.fetch(target, wanted).await {
                Err(error @ (FetchError::Busy { .. } | FetchError::GivenUp { .. })) => return Err(error),
                Err(error) if error.is_transient() => {
                    self.0.manners.leave_alone(&target.host, pause);
                    pause *= 2;
                }
                result => return result,
            }
        }
        self.fetch(target, wanted).await
    }

    /// Fetches a URL and follows its redirects.
    async fn fetch(&self, first: &Target, wanted: &Wanted<'_>) -> Result<Fetched, FetchError> {
        let mut target = first.clone();
        for _ in 0..=MAX_REDIRECTS {
            if wanted.how.asks_robots && !self.rules(&target, wanted.how).await?.allow(target.path()) {
                return Err(FetchError::Robots { host: target.host });
            }
            match self.step(&target, wanted).await? {
                Step::Here(fetched) => return Ok(fetched),
                Step::Elsewhere(next) if !wanted.headers.values().any(HeaderValue::is_sensitive) => target = next,
                Step::Elsewhere(next) if next.url.origin() == first.url.origin() => target = next,
                Step::Elsewhere(next) => {
                    let reason = format!("it redirects to {}, to whom its key is not shown", next.host);
                    return Err(FetchError::NotAPhoto(reason));
                }
            }
        }
        Err(FetchError::TooManyRedirects(MAX_REDIRECTS))
    }

    /// One request, once there is a place for it.
    async fn step(&self, target: &Target, wanted: &Wanted<'_>) -> Result<Step, FetchError> {
        let manners = &self.0.manners;
        let given_up = || FetchError::GivenUp { host: target.host.clone() };
        if manners.has_given_up(&target.host) {
            return Err(given_up());
        }
        let place = manners.place(&target.host, wanted.interval).await;
        // Whoever had the place before may have given the host up.
        if manners.has_given_up(&target.host) {
            return Err(given_up());
        }
        let step = async {
            let answer = self.send(target, wanted.headers).await?;
            let status = answer.status();
            if status.is_redirection() {
                let Some(location) = answer.location() else {
                    return Err(FetchError::BadUrl("the host redirects and does not say where to".to_owned()));
                };
                return target.follow(&location, wanted.how.allows_http).map(Step::Elsewhere);
            }
            if status == StatusCode::OK {
                let bytes = answer.body(wanted.limit).await?;
                return Ok(Step::Here(Fetched { bytes, _place: place }));
            }
            Err(self.refused(target, &answer))
        };
        let longest = self.0.longest_fetch;
        let step = timeout(longest, step).await.unwrap_or(Err(FetchError::Slow(longest)));
        manners.note(&target.host, !step.as_ref().is_err_and(FetchError::is_transient));
        step
    }

    async fn send(&self, target: &Target, headers: &HeaderMap) -> Result<Answer, FetchError> {
        let addresses = target.addresses(&*self.0.lookup, &self.0.allowance).await?;
        let mut headers = headers.clone();
        headers.insert(header::USER_AGENT, self.0.user_agent.clone());
        let tls = || self.0.tls.get_or_init(exchange::connector).clone();
        exchange::ask(target, &addresses, headers, tls).await
    }

    /// What an answer means that brings nothing. If the host asks for a pause, it gets one.
    #[expect(clippy::disallowed_methods, reason = "a host may ask for a pause until a time of the wall clock")]
    fn refused(&self, target: &Target, answer: &Answer) -> FetchError {
        let status = answer.status();
        let pause = answer.header(header::RETRY_AFTER).filter(|_| error::is_transient(status));
        match pause.and_then(|text| manners::retry_after(text, SystemTime::now())) {
            Some(pause) => {
                if pause > LONGEST_PAUSE {
                    self.0.manners.give_up(&target.host, pause);
                    return FetchError::Busy { pause };
                }
                self.0.manners.leave_alone(&target.host, pause);
                FetchError::Status { status }
            }
            None => FetchError::Status { status },
        }
    }

    /// The rules for robots of a host, asked for once. A host that has none allows everything; one that does not answer, nothing.
    async fn rules(&self, target: &Target, how: How) -> Result<Rules, FetchError> {
        let robots = target.follow("/robots.txt", how.allows_http)?;
        let cell = {
            let mut rules = self.0.rules.lock();
            if rules.len() >= MAX_RULES {
                rules.clear();
            }
            rules.entry(robots.url.to_string()).or_default().clone()
        };
        let headers = HeaderMap::new();
        let how = How { asks_robots: false, ..how };
        let wanted = Wanted { headers: &headers, limit: MAX_ROBOTS_BYTES, interval: Duration::ZERO, how };
        // The kinds of the rules and of the photos would call each other without end.
        let rules = cell.get_or_try_init(|| async {
            match Box::pin(self.fetch(&robots, &wanted)).await {
                Ok(text) => Ok(Rules::parse(&String::from_utf8_lossy(&text.bytes), ROBOT)),
                Err(FetchError::Status { status }) if status.is_client_error() => Ok(Rules::default()),
                Err(error @ (FetchError::NotPublic { .. } | FetchError::Insecure)) => Err(error),
                // Nobody knows the rules now. They are asked for again with the next try.
                Err(error) if error.is_transient() => Err(error),
                Err(_) => Ok(Rules::nothing()),
            }
        });
        rules.await.cloned()
    }
}

/// What a host has answered. Until it is dropped it counts as a request under way, since its bytes are held.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) bytes: Bytes,
    _place: Place,
}

enum Step {
    Here(Fetched),
    Elsewhere(Target),
}

/// What is there instead of a photo.
fn no_photo(body: &[u8], error: &DecodeError) -> String {
    let head = String::from_utf8_lossy(&body[..body.len().min(1024)]).to_lowercase();
    match head.contains("<html") || head.contains("<!doctype html") {
        true => "a web page is there and no photo".to_owned(),
        false => format!("no photo is there that can be read: {error}"),
    }
}
