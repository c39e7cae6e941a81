//! A web server on loopback that answers as a test wants: also wrongly, late, or not to the end.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use parking_lot::Mutex;

/// A running server. It ends when this is dropped.
#[derive(Debug)]
pub struct Web {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    is_over: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

/// A request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// The path with its query.
    pub path: String,
    /// The lines of its headers, in lower case.
    pub headers: Vec<String>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    status: &'static str,
    headers: Vec<String>,
    body: Vec<u8>,
    manner: Manner,
}

/// How much of an answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// All of it, and its length.
    Whole,
    /// All of it, without its length.
    Unmeasured,
    /// Half of it, and the length of all.
    CutOff,
    /// Nothing, for as long as the client waits.
    Silent,
}

impl Reply {
    /// A body.
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: "200 OK", headers: Vec::new(), body: body.into(), manner: Manner::Whole }
    }

    /// A status, such as "404 Not Found", with a page of HTML.
    pub fn status(status: &'static str) -> Self {
        Self { status, ..Self::ok("<html><body>an error page</body></html>") }
    }

    /// A redirect.
    pub fn elsewhere(url: impl std::fmt::Display) -> Self {
        Self::status("302 Found").with(format!("location: {url}"))
    }

    /// The same with a header: "retry-after: 1".
    pub fn with(mut self, header: impl Into<String>) -> Self {
        self.headers.push(header.into());
        self
    }

    /// The same without its length.
    pub fn unmeasured(self) -> Self {
        Self { manner: Manner::Unmeasured, ..self }
    }

    /// The same, which ends in its middle.
    pub fn cut_off(self) -> Self {
        Self { manner: Manner::CutOff, ..self }
    }

    /// No answer at all.
    pub fn silence() -> Self {
        Self { manner: Manner::Silent, ..Self::ok("") }
    }

    fn send(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        if self.manner == Manner::Silent {
            // The client gives up some time.
            stream.read_to_end(&mut Vec::new())?;
            return Ok(());
        }
        write!(stream, "HTTP/1.1 {}\r\nconnection: close\r\n", self.status)?;
        for header in &self.headers {
            write!(stream, "{header}\r\n")?;
        }
        if self.manner != Manner::Unmeasured {
            write!(stream, "content-length: {}\r\n", self.body.len())?;
        }
        stream.write_all(b"\r\n")?;
        let sent = if self.manner == Manner::CutOff { self.body.len() / 2 } else { self.body.len() };
        stream.write_all(&self.body[..sent])
    }
}

impl Web {
    /// Starts a server that answers so.
    ///
    /// # Panics
    /// If the machine has no port for it.
    pub fn serve(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the machine has free ports");
        let address = listener.local_addr().expect("it is bound");
        let (asked, is_over) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::<AtomicBool>::default());
        let (seen, over, answer) = (asked.clone(), is_over.clone(), Arc::new(answer));
        let listener = thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(mut stream), seen, answer) = (stream, seen.clone(), answer.clone()) else { continue };
                thread::spawn(move || {
                    let Some(asked) = read(&stream) else { return };
                    seen.lock().push(asked.clone());
                    // A client that has gone needs no answer.
                    let _ = answer(&asked).send(&mut stream);
                });
            }
        });
        Self { address, asked, is_over, listener: Some(listener) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL of it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All requests until now.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }

    /// How often something was asked for whose path begins so.
    pub fn count(&self, path: &str) -> usize {
        self.asked().iter().filter(|asked| asked.path.starts_with(path)).count()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // This wakes the listener. If nobody listens any more, it has ended.
        let _ = TcpStream::connect(self.address);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

/// Reads the head of a request; `None` if the client sends none.
fn read(stream: &TcpStream) -> Option<Asked> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers = lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()).collect();
    Some(Asked { path, headers })
}
