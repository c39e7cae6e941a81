//! The counters of coordinators, summed up over their restarts.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};

/// How often each coordinator is asked. A killed coordinator loses the counts since the last time, so the sums are lower bounds.
const PERIOD: Duration = Duration::from_millis(200);

/// Reads a coordinator's counters at intervals.
#[derive(Debug)]
pub(crate) struct Meter {
    sums: Arc<Mutex<HashMap<String, Sum>>>,
    reading: JoinHandle<()>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    /// The sum over the processes before this one.
    before: u64,
    /// The value that was read last.
    now: u64,
}

impl Meter {
    pub(crate) fn start(address: SocketAddr) -> Self {
        let sums = Arc::new(Mutex::new(HashMap::new()));
        let shared = sums.clone();
        let reading = tokio::spawn(async move {
            loop {
                let page = tokio::time::timeout(Duration::from_secs(1), read(address)).await;
                if let Ok(Ok(page)) = page {
                    take(&mut shared.lock(), &page);
                }
                tokio::time::sleep(PERIOD).await;
            }
        });
        Self { sums, reading }
    }

    /// The sum of a counter over its labels and the coordinator's restarts.
    pub(crate) fn total(&self, counter: &str) -> u64 {
        let sums = self.sums.lock();
        let of_counter = sums.iter().filter(|(name, _)| name.split('{').next() == Some(counter));
        of_counter.map(|(_, sum)| sum.before + sum.now).sum()
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

async fn read(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    Ok(page)
}

fn take(sums: &mut HashMap<String, Sum>, page: &str) {
    let counters = page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    for (name, value) in counters {
        let Ok(value) = value.parse::<u64>() else { continue };
        let sum = sums.entry(name.to_owned()).or_default();
        if value < sum.now {
            // A new process counts from 0.
            sum.before += sum.now;
        }
        sum.now = value;
    }
}
