//! Ten times the nominal load: how long accepted calls take, how soon the others are refused, and what the coordinator holds.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use sortinghat_proto::{
    limits::MAX_BULK_JOBS_IN_FLIGHT,
    retry_after,
    v1::{SubmitJobRequest, SubmitJobsRequest, job_service_client::JobServiceClient},
};
use tokio::{task::JoinSet, time::MissedTickBehavior};
use tonic::{Code, transport::Channel};

use crate::{
    Failure,
    measure::Latency,
    ours::{Ours, Store},
};

/// How much more than nominal an overload is.
const TIMES: f64 = 10.0;
/// How long each load lasts.
const LASTS: Duration = Duration::from_secs(8);
/// Connections that calls take in turns; a server takes a thousand calls at a time on each.
const CONNECTIONS: usize = 8;
/// How often memory is looked at.
const MEMORY_INTERVAL: Duration = Duration::from_millis(50);

/// How one call ended, counted from the moment when it was due.
enum Answer {
    Accepted(Duration),
    Refused(Duration),
}

/// What became of the calls of one load.
#[derive(Default)]
struct Outcome {
    accepted_ms: Vec<f64>,
    refused_ms: Vec<f64>,
    peak_mib: f64,
    elapsed_s: f64,
}

/// Submissions of so many jobs each.
struct Load {
    connections: Vec<JobServiceClient<Channel>>,
    request: SubmitJobsRequest,
}

/// Offers half of what the coordinator can take, and then ten times that.
pub(crate) async fn overload(store: Store, jobs_per_call: usize) -> Result<(), Failure> {
    let ours = Ours::start(store).await?;
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
            connections.push(JobServiceClient::new(endpoint.connect().await?));
        }
        Ok(Self { connections, request: SubmitJobsRequest { jobs: vec![job; jobs_per_call] } })
    }

    /// Accepted calls a second where as many as there is room for are under way all the time.
    async fn capacity(&self) -> Result<f64, Failure> {
        let began = Instant::now();
        let mut callers = JoinSet::new();
        for number in 0..(MAX_BULK_JOBS_IN_FLIGHT / self.request.jobs.len()).max(1) {
            let (service, request) = self.call(number);
            callers.spawn(async move {
                let mut calls = 0_u32;
                while began.elapsed() < LASTS {
                    let answer = call(service.clone(), request.clone(), Instant::now()).await?;
                    calls += u32::from(matches!(answer, Answer::Accepted(_)));
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

    /// Calls at this rate, whatever becomes of the calls.
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
                    let (service, request) = self.call(number);
                    calls.spawn(call(service, request, due.into_std()));
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

    fn call(&self, number: usize) -> (JobServiceClient<Channel>, SubmitJobsRequest) {
        (self.connections[number % CONNECTIONS].clone(), self.request.clone())
    }
}

/// One call. A refusal that does not say when to come back is a failure, and so is one of a single job of the call.
async fn call(
    mut service: JobServiceClient<Channel>,
    request: SubmitJobsRequest,
    due: Instant,
) -> Result<Answer, Failure> {
    let answer = service.submit_jobs(request).await;
    let took = due.elapsed();
    match answer {
        Ok(answer) => match answer.into_inner().verdicts.iter().all(crate::ours::is_accepted) {
            true => Ok(Answer::Accepted(took)),
            false => Err("a job of an accepted call was refused".into()),
        },
        Err(status) if status.code() == Code::ResourceExhausted && retry_after(&status).is_some() => {
            Ok(Answer::Refused(took))
        }
        Err(status) => Err(status.into()),
    }
}

impl Outcome {
    fn take(&mut self, answer: Answer) {
        match answer {
            Answer::Accepted(took) => self.accepted_ms.push(took.as_secs_f64() * 1e3),
            Answer::Refused(took) => self.refused_ms.push(took.as_secs_f64() * 1e3),
        }
    }

    fn print(&self, name: &str) {
        let rate = |calls: &[f64]| calls.len() as f64 / self.elapsed_s;
        let offered = rate(&self.accepted_ms) + rate(&self.refused_ms);
        print!("  {name:<9} {offered:>7.0} calls/s offered, ");
        for (word, calls) in [("accepted", &self.accepted_ms), ("refused", &self.refused_ms)] {
            print!("{:>7.0}/s {word}", rate(calls));
            if !calls.is_empty() {
                let Latency { p50_ms, p99_ms } = Latency::of(calls.clone());
                print!(" (p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms) ");
            }
        }
        println!();
    }
}
