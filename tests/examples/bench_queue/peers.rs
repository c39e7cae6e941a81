//! Other queues, in the setup of their users: a worker process and a producer process beside a Redis server.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Lines, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use sortinghat_tests::{Process, cache, start_redis};
use tempfile::TempDir;

use crate::{
    Failure, PAYLOAD_BYTES, SLOTS, TRICKLE,
    measure::{Latency, Throughput, cpu_of},
};

/// When Redis syncs the writes that it acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    Always,
    EverySecond,
}

/// Another queue and its server.
pub(crate) struct Peer {
    redis: Process,
    port: u16,
    program: Program,
    // Declared after the server, which writes into it and so must end first.
    _folder: TempDir,
}

#[derive(Debug, Clone, Copy)]
enum Program {
    BullMq,
    Celery,
}

impl Peer {
    pub(crate) fn bullmq(sync: Sync) -> Result<Self, Failure> {
        Self::start(Program::BullMq, sync)
    }

    pub(crate) fn celery() -> Result<Self, Failure> {
        Self::start(Program::Celery, Sync::EverySecond)
    }

    fn start(program: Program, sync: Sync) -> Result<Self, Failure> {
        let folder = TempDir::with_prefix("sortinghat-bench-")?;
        let sync = match sync {
            Sync::Always => "always",
            Sync::EverySecond => "everysec",
        };
        let (redis, port) = start_redis(folder.path(), &["--appendfsync", sync]);
        Ok(Self { redis, port, program, _folder: folder })
    }

    pub(crate) fn turn(&self, jobs: usize, bulk: usize) -> Result<(Throughput, Latency), Failure> {
        Ok((self.cycles(jobs, bulk)?, self.trickle(TRICKLE)?))
    }

    fn cycles(&self, jobs: usize, bulk: usize) -> Result<Throughput, Failure> {
        let mut worker = self.run("work", &[SLOTS as usize, jobs])?;
        worker.line()?;
        let server_before = cpu_of(self.redis.pid().as_raw())?;
        let added = self.run("add", &[jobs, bulk, PAYLOAD_BYTES])?.line()?;
        let worked = worker.line()?;
        let server = cpu_of(self.redis.pid().as_raw())? - server_before;
        let ms = |value: &Value| value.as_f64().ok_or("a figure is missing");
        let elapsed = Duration::from_secs_f64((ms(&worked["ended_ms"])? - ms(&added["began_ms"])?) / 1e3);
        let clients = Duration::from_secs_f64((ms(&worked["cpu_ms"])? + ms(&added["cpu_ms"])?) / 1e3);
        Ok(Throughput::of(jobs, elapsed, server, clients))
    }

    /// Full cycles a second with several workers, each of which is a process.
    pub(crate) fn shared_cycles(&self, jobs: usize, bulk: usize, workers: usize) -> Result<f64, Failure> {
        let workers = (0..workers).map(|_| self.run("share", &[SLOTS as usize]));
        let mut workers = workers.collect::<Result<Vec<Running>, Failure>>()?;
        for worker in &mut workers {
            worker.line()?;
        }
        let added = self.run("add", &[jobs, bulk, PAYLOAD_BYTES])?.line()?;
        self.until_nothing_is_queued()?;
        let (mut done, mut ended_ms) = (0, 0.0_f64);
        for worker in &mut workers {
            worker.child.stdin.take();
            let worked = worker.line()?;
            done += worked["jobs"].as_u64().ok_or("a figure is missing")?;
            ended_ms = ended_ms.max(worked["ended_ms"].as_f64().ok_or("a figure is missing")?);
        }
        if done != jobs as u64 {
            return Err(format!("{done} of {jobs} jobs were run").into());
        }
        Ok(jobs as f64 / (ended_ms - added["began_ms"].as_f64().ok_or("a figure is missing")?) * 1e3)
    }

    fn until_nothing_is_queued(&self) -> Result<(), Failure> {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port))?;
        let mut replies = BufReader::new(connection.try_clone()?);
        loop {
            connection.write_all(b"EXISTS bull:bench:wait bull:bench:active\r\n")?;
            let mut reply = String::new();
            replies.read_line(&mut reply)?;
            if reply == ":0\r\n" {
                return Ok(());
            }
            #[expect(clippy::disallowed_methods, reason = "nothing else runs on this thread")]
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn trickle(&self, jobs: usize) -> Result<Latency, Failure> {
        let mut worker = self.run("work", &[SLOTS as usize, jobs])?;
        worker.line()?;
        let sent = times(&self.run("trickle", &[jobs, PAYLOAD_BYTES])?.line()?["sent"])?;
        let started = times(&worker.line()?["starts"])?;
        let late = |name: &String| format!("job {name} was not started");
        let samples: Result<Vec<f64>, String> =
            sent.iter().map(|(name, sent)| Ok(started.get(name).ok_or_else(|| late(name))? - sent)).collect();
        Ok(Latency::of(samples?))
    }

    fn run(&self, command: &str, numbers: &[usize]) -> Result<Running, Failure> {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
        let mut program = match self.program {
            Program::BullMq => {
                let mut node = Command::new("node");
                node.arg(scripts.join("bullmq.mjs")).env("BULLMQ_FOLDER", cache("bullmq"));
                node
            }
            Program::Celery => {
                let mut python = Command::new(cache("celery").join("bin/python"));
                python.arg(scripts.join("celery_peer.py"));
                python
            }
        };
        program.arg(self.port.to_string()).arg(command).args(numbers.iter().map(ToString::to_string));
        let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Ok(Running { child, lines })
    }
}

/// A script that prints JSON documents.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// The next document.
    fn line(&mut self) -> Result<Value, Failure> {
        let line = self.lines.next().ok_or("a peer ended without an answer")??;
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The script ends by itself after its last document, once its input is closed.
        self.child.stdin.take();
        let _ = self.child.wait();
    }
}

/// The names and times in `[[name, ms], ...]`.
fn times(list: &Value) -> Result<HashMap<String, f64>, Failure> {
    Ok(serde_json::from_value::<Vec<(String, f64)>>(list.clone())?.into_iter().collect())
}
