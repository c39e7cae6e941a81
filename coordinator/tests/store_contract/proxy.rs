//! A TCP proxy that loses replies on demand.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Passes bytes between its clients and a server on loopback.
pub(crate) struct Proxy {
    port: u16,
    loses_replies: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let loses_replies = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        let loses = loses_replies.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(pass_on(client, server, loses.clone()));
            }
        });
        Self { port, loses_replies, _tasks: tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Decides whether a reply of the server is lost from now on, together with its connection.
    pub(crate) fn lose_replies(&self, loses: bool) {
        self.loses_replies.store(loses, Ordering::SeqCst);
    }
}

async fn pass_on(mut client: TcpStream, server: u16, loses_replies: Arc<AtomicBool>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    let (mut request, mut reply) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut request) => match read {
                Ok(length @ 1..) if server.write_all(&request[..length]).await.is_ok() => {}
                _ => return,
            },
            read = server.read(&mut reply) => match read {
                Ok(1..) if loses_replies.load(Ordering::SeqCst) => return,
                Ok(length @ 1..) if client.write_all(&reply[..length]).await.is_ok() => {}
                _ => return,
            },
        }
    }
}
