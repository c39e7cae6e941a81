//! An S3-compatible object store on loopback: moto, which `make test-deps` installs.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
};

use crate::{Process, cache, wait_until};

const BUCKET: &str = "photos";

/// A server with one bucket in memory, which is empty at first. It ends when this is dropped.
#[derive(Debug)]
pub struct S3Server {
    _process: Process,
    bucket: Bucket,
}

/// A bucket and the address of its server.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// HOST:PORT.
    server: String,
}

impl S3Server {
    /// Starts a server on a free port. Its log is written into `folder`.
    pub fn start(folder: &Path) -> Self {
        let log = folder.join("s3.log");
        let mut command = Command::new(cache("python").join("bin/python"));
        let process = Process::start(command.args(["-m", "moto.server", "--host", "127.0.0.1", "--port", "0"]), &log);
        let server = wait_until("the S3 server to serve", || {
            let log = fs::read_to_string(&log).ok()?;
            let (_, address) = log.split_once("Running on http://")?;
            address.lines().next().filter(|_| address.contains('\n')).map(str::to_owned)
        });
        let bucket = Bucket { server };
        let answer = bucket.ask("PUT", "");
        assert!(answer.starts_with("HTTP/1.1 200"), "the bucket is not made: {answer}");
        Self { _process: process, bucket }
    }

    /// The server's bucket.
    pub fn bucket(&self) -> Bucket {
        self.bucket.clone()
    }
}

impl Bucket {
    /// Lets a program keep its objects in this bucket, below a prefix.
    pub fn give_to(&self, command: &mut Command) {
        command
            .args(["--object-store", &format!("s3://{BUCKET}/some/where")])
            .env("AWS_ENDPOINT_URL", format!("http://{}", self.server))
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test");
    }

    /// The address of the server.
    pub fn address(&self) -> SocketAddr {
        self.server.parse().expect("the server has told its address")
    }

    /// The same bucket, reached through a proxy at this address.
    #[must_use]
    pub fn behind(&self, proxy: SocketAddr) -> Self {
        Self { server: proxy.to_string() }
    }

    /// The first thousand keys, by name.
    pub fn keys(&self) -> Vec<String> {
        let listing = self.ask("GET", "?list-type=2");
        let keys = listing.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>"));
        keys.map(|(key, _)| key.to_owned()).collect()
    }

    /// Sends one request about the bucket itself, and returns the whole answer.
    fn ask(&self, method: &str, query: &str) -> String {
        let mut connection = TcpStream::connect(&self.server).expect("the server listens");
        let head = format!("{method} /{BUCKET}{query} HTTP/1.1\r\nHost: {}\r\n", self.server);
        let request = format!("{head}Content-Length: 0\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).expect("the server reads");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("the server answers");
        answer
    }
}
