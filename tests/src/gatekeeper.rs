//! A gatekeeper before a bucket, which lets each key reach what its rule allows and notes who was let in and who was not.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use parking_lot::Mutex;

/// Whether the key with this id may reach this path.
type Rule = dyn Fn(&str, &str) -> bool + Send + Sync;

/// A gatekeeper. It serves until the test ends.
#[derive(Debug)]
pub struct Gatekeeper {
    address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The id of the key that has signed it.
    pub key: String,
    /// What was asked for.
    pub path: String,
    /// Whether the rule allows it.
    pub is_allowed: bool,
}

impl Gatekeeper {
    /// Starts one before the bucket at `upstream`.
    pub fn start(upstream: SocketAddr, rule: impl Fn(&str, &str) -> bool + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let (calls, rule): (Arc<Mutex<Vec<Call>>>, Arc<Rule>) = (Arc::default(), Arc::new(rule));
        let noted = calls.clone();
        thread::spawn(move || {
            for caller in listener.incoming().flatten() {
                let (noted, rule) = (noted.clone(), rule.clone());
                // A caller that has gone away needs no answer.
                thread::spawn(move || serve(caller, upstream, &noted, &*rule).ok());
            }
        });
        Self { address, calls }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All requests so far.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().clone()
    }
}

/// Answers one request, and closes the connection.
fn serve(mut caller: TcpStream, upstream: SocketAddr, noted: &Mutex<Vec<Call>>, rule: &Rule) -> std::io::Result<()> {
    let mut reader = BufReader::new(caller.try_clone()?);
    let (mut head, mut length, mut key) = (String::new(), 0, String::new());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or_default();
        }
        if lower.starts_with("authorization:")
            && let Some((_, rest)) = line.split_once("Credential=")
        {
            key = rest.split('/').next().unwrap_or_default().to_owned();
        }
        match line.trim_end() {
            "" => break,
            _ if lower.starts_with("connection:") => {}
            _ => head += &line,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let is_allowed = rule(&key, &path);
    noted.lock().push(Call { key, path, is_allowed });
    if !is_allowed {
        let body = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
        let head = format!("HTTP/1.1 403 Forbidden\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        caller.write_all((head + body).as_bytes())?;
        return caller.shutdown(Shutdown::Write);
    }
    let mut server = TcpStream::connect(upstream)?;
    server.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
    server.write_all(&body)?;
    std::io::copy(&mut server, &mut caller)?;
    caller.shutdown(Shutdown::Write)
}
