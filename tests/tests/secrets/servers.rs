//! Servers that refuse everything and repeat in their answers what they were asked with, as some do to explain themselves.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

/// A hub or a bucket that refuses every request. It serves until the test ends.
pub(crate) struct Refusing(SocketAddr);

impl Refusing {
    /// Starts one that answers with this status.
    pub(crate) fn start(status: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it listens");
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                // A caller that has gone away needs no answer.
                let _ = refuse(connection, status);
            }
        });
        Self(address)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.0)
    }
}

fn refuse(mut connection: TcpStream, status: &str) -> std::io::Result<()> {
    let mut request = String::new();
    let mut lines = BufReader::new(&connection).lines();
    while let Some(line) = lines.next().transpose()?.filter(|line| !line.is_empty()) {
        request += &line;
        request.push('\n');
    }
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>The signature does not match.</Message>\
         <StringToSign>{request}</StringToSign></Error>"
    );
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    connection.write_all((head + &body).as_bytes())
}
