//! Ten times the nominal load: how long accepted calls take, how soon the other calls are refused, and how much memory the coordinator
//! needs.

use std::{net::SocketAddr, time::Duration};

use bytes::{BufMut as _, Bytes};
use http::uri::PathAndQuery;
use prost::Message as _;
use sortinghat_proto::{
    limits::MAX_BULK_JOBS_IN_FLIGHT,
    retry_after,
    v1::{SubmitJobRequest, SubmitJobsRequest, SubmitJobsResponse},
};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, EncodeBuf, Encoder},
    transport::Channel,
};
use tonic_prost::ProstCodec;

use crate::{
    Failure,
    measure::Latency,
    ours::{Ours, Store},
};

/// How many times the nominal load an overload is.
const TIMES: f64 = 10.0;
/// How long each load lasts.
const LASTS: Duration = Duration::from_secs(8);
/// How many connections the calls use in turns. A server allows a thousand calls at a time on each.
const CONNECTIONS: usize = 8;
/// Redis rewrites its file beside its other work whenever the file has doubled. A file that begins empty would double every few seconds.
const NO_REWRITES: [&str; 2] = ["--auto-aof-rewrite-percentage", "0"];
/// How often the memory is measured.
const MEMORY_INTERVAL: Duration = Duration::from_millis(50);

/// How one call ended.
struct Answer {
    is_accepted: bool,
    /// The time since the moment at which the call was due.
    took: Duration,
    /// The part of that time until the load generator began the call. The generator shares the machine with the coordinator.
    late: Duration,
}

/// The results of the calls of one load.
#[derive(Default)]
struct Outcome {
    accepted_ms: Vec<f64>,
    refused_ms: Vec<f64>,
    late_ms: Vec<f64>,
    peak_mib: f64,
    elapsed_s: f64,
}

/// Submissions of this many jobs each. All of them are the same and encoded in advance.
struct Load {
    connections: Vec<Channel>,
    jobs_per_call: usize,
    request: Bytes,
}

/// A codec for a message that is encoded already.
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = SubmitJobsResponse;
    type Encoder = Self;
    type Decoder = <ProstCodec<(), SubmitJobsResponse> as Codec>::Decoder;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<(), SubmitJobsResponse>::default().decoder()
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

/// Offers half of the load that the coordinator can take, and then ten times that.
pub(crate) async fn overload(store: Store, jobs_per_call: usize) -> Result<(), Failure> {
    let ours = Ours::start_beside(store, &NO_REWRITES).await?;
    let load = Load::connect(ours.address(), ours.job(), jobs_per_call).await?;
    let nominal_rate = load.capacity().await? / 2.0;
    println!("calls of {jobs_per_call} jobs, {nominal_rate:.0}/s nominal: half of what the coordinator can take");
    let before_mib = ours.memory_mib()?;
    let nominal = load.offer(&ours, nominal_rate).await?;
    let overload = load.offer(&ours, nominal_rate * TIMES).await?;
    for (name, outcome) in [("nominal", &nominal), ("overload", &overload)] {
        outcome.print(name);
    }
    println!(
        "  the coordinator held {before_mib:.0} MiB before, {:.0} MiB at most while nominal, {:.0} MiB at most while overloaded, {:.0} MiB after",
        nominal.peak_mib,
        overload.peak_mib,
        ours.memory_mib()?
    );
    Ok(())
}

impl Load {
    async fn connect(address: SocketAddr, job: SubmitJobRequest, jobs_per_call: usize) -> Result<Self, Failure> {
        let endpoint = Channel::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(endpoint.connect().await?);
        }
        let request = SubmitJobsRequest { jobs: vec![job; jobs_per_call] }.encode_to_vec().into();
        Ok(Self { connections, jobs_per_call, request })
    }

    /// Accepted calls a second while all places are taken all the time.
    async fn capacity(&self) -> Result<f64, Failure> {
        let began = Instant::now();
        let mut callers = JoinSet::new();
        for number in 0..(MAX_BULK_JOBS_IN_FLIGHT / self.jobs_per_call).max(1) {
            let (channel, request) = self.call(number);
            callers.spawn(async move {
                let mut calls = 0_u32;
                while began.elapsed() < LASTS {
                    let answer = call(channel.clone(), request.clone(), Instant::now()).await?;
                    calls += u32::from(answer.is_accepted);
                }
                Ok::<_, Failure>(calls)
            });
        }
        let mut calls = 0;
        while let Some(caller) = callers.join_next().await {
            calls += caller??;
        }
        Ok(f64::from(calls) / began.elapsed().as_secs_f64())
    }

    /// Makes calls at this rate, whatever their results are.
    async fn offer(&self, ours: &Ours, rate: f64) -> Result<Outcome, Failure> {
        let (began, mut outcome) = (Instant::now(), Outcome::default());
        let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut memory = tokio::time::interval(MEMORY_INTERVAL);
        let mut calls = JoinSet::new();
        for number in 0.. {
            tokio::select! {
                biased;
                _ = memory.tick() => outcome.peak_mib = outcome.peak_mib.max(ours.memory_mib()?),
                due = ticks.tick() => {
                    let (channel, request) = self.call(number);
                    calls.spawn(call(channel, request, due));
                }
            }
            while let Some(answer) = calls.try_join_next() {
                outcome.take(answer??);
            }
            if began.elapsed() >= LASTS {
                break;
            }
        }
        outcome.elapsed_s = began.elapsed().as_secs_f64();
        while let Some(answer) = calls.join_next().await {
            outcome.take(answer??);
        }
        Ok(outcome)
    }

    fn call(&self, number: usize) -> (Channel, Bytes) {
        (self.connections[number % CONNECTIONS].clone(), self.request.clone())
    }
}

/// Makes one call. It is a failure if a refusal does not say when to try again, or if a single job of an accepted call is refused.
async fn call(channel: Channel, request: Bytes, due: Instant) -> Result<Answer, Failure> {
    let late = due.elapsed();
    let mut client = Grpc::new(channel);
    client.ready().await?;
    let path = PathAndQuery::from_static("/sortinghat.v1.JobService/SubmitJobs");
    let answer = client.unary(Request::new(request), path, Encoded).await;
    let took = due.elapsed();
    let is_accepted = match answer {
        Ok(answer) if answer.get_ref().verdicts.iter().all(crate::ours::is_accepted) => true,
        Ok(_) => return Err("a job of an accepted call was refused".into()),
        Err(status) if status.code() == Code::ResourceExhausted && retry_after(&status).is_some() => false,
        Err(status) => return Err(status.into()),
    };
    Ok(Answer { is_accepted, took, late })
}

impl Outcome {
    fn take(&mut self, answer: Answer) {
        let Answer { is_accepted, took, late } = answer;
        let calls = if is_accepted { &mut self.accepted_ms } else { &mut self.refused_ms };
        calls.push(took.as_secs_f64() * 1e3);
        self.late_ms.push(late.as_secs_f64() * 1e3);
    }

    fn print(&self, name: &str) {
        let rate = |calls: &[f64]| calls.len() as f64 / self.elapsed_s;
        let offered = rate(&self.accepted_ms) + rate(&self.refused_ms);
        print!("  {name:<9} {offered:>7.0} calls/s offered, ");
        for (word, calls) in [("accepted", &self.accepted_ms), ("refused", &self.refused_ms)] {
            print!("{:>7.0}/s {word}", rate(calls));
            if !calls.is_empty() {
                let Latency { p50_ms, p99_ms } = Latency::of(calls.clone());
                print!(" (p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms)");
            }
        }
        let Latency { p50_ms, p99_ms } = Latency::of(self.late_ms.clone());
        println!("; of that the generator was late by p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms");
    }
}
