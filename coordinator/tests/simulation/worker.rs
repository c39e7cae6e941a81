//! A worker that follows the protocol, on a machine that may crash. Its tasks take a random time and have random outcomes.

use std::time::Duration;

use rand::{RngExt as _, rngs::StdRng};
use sortinghat_proto::{
    ObjectRef,
    limits::SESSION_SECRET_BYTES,
    v1::{
        self, AttemptEvent, ErrorCode, FailureClass, LeaseReport, UploadObjectRequest, attempt_event,
        task_outcome::Outcome, upload_object_request::Part,
    },
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{COORDINATORS, LEASE_MS, ledger::Ledger, network::Clients};

const SLOTS: usize = 2;

/// An attempt that this worker runs, or that has ended and is not acknowledged yet.
struct Attempt {
    report: LeaseReport,
    job: String,
    /// When the lease ends, counted from the moment at which this worker sent the message that was answered.
    until: Duration,
    ends_at: Instant,
    ends_how: Ending,
    cancelled: bool,
}

#[derive(Debug, Clone, Copy)]
enum Ending {
    Success,
    Crash,
    Transient,
    Returned,
    UsersFault,
}

struct Worker {
    id: String,
    ledger: Ledger,
    dice: StdRng,
    coordinators: Vec<Clients>,
    sequence: u64,
    attempts: Vec<Attempt>,
}

/// Works until its machine crashes.
pub(crate) async fn run(id: String, ledger: Ledger, dice: StdRng) -> turmoil::Result {
    let coordinators = COORDINATORS.into_iter().map(Clients::of).collect();
    let mut worker = Worker { id, ledger, dice, coordinators, sequence: 0, attempts: Vec::new() };
    loop {
        worker.fence();
        worker.end_what_is_done().await;
        let sent = now();
        match worker.synchronize().await {
            Some(Ok(answer)) => worker.obey(answer, sent),
            Some(Err(status)) => {
                assert!(!status.message().contains("invariant"), "{status}");
                sleep(Duration::from_millis(worker.dice.random_range(50..400))).await;
            }
            None => {}
        }
    }
}

fn now() -> Duration {
    turmoil::sim_elapsed().expect("it runs in a simulation")
}

impl Worker {
    /// Gives up attempts whose leases may have ended.
    fn fence(&mut self) {
        let ledger = self.ledger.clone();
        self.attempts.retain(|attempt| {
            let keeps = attempt.until > now() || attempt.report.outcome.is_some();
            if !keeps {
                ledger.let_go(&attempt.report.task_id, attempt.report.epoch);
            }
            keeps
        });
    }

    async fn end_what_is_done(&mut self) {
        for number in 0..self.attempts.len() {
            let attempt = &self.attempts[number];
            if attempt.report.outcome.is_some() || attempt.ends_at > Instant::now() && !attempt.cancelled {
                continue;
            }
            let outcome = if attempt.cancelled { Some(Outcome::Cancelled(v1::TaskCancelled {})) } else { None };
            let Some(outcome) = (match outcome {
                Some(outcome) => Some(outcome),
                None => self.outcome(number).await,
            }) else {
                continue;
            };
            let attempt = &mut self.attempts[number];
            self.ledger.let_go(&attempt.report.task_id, attempt.report.epoch);
            attempt.report.outcome = Some(v1::TaskOutcome { outcome: Some(outcome) });
        }
    }

    /// The outcome of an attempt; `None` if its output cannot be stored now.
    async fn outcome(&mut self, number: usize) -> Option<Outcome> {
        let attempt = &self.attempts[number];
        let failure = |failure_class: FailureClass, code: ErrorCode| {
            Some(Outcome::Failed(v1::Failure {
                failure_class: failure_class.into(),
                code: code.into(),
                message: "as the dice fell".to_owned(),
                field: String::new(),
            }))
        };
        match attempt.ends_how {
            Ending::Crash => Some(Outcome::Crashed("killed by signal 9".to_owned())),
            Ending::Returned => Some(Outcome::Returned("no room".to_owned())),
            Ending::Transient => failure(FailureClass::Infrastructure, ErrorCode::StorageUnavailable),
            Ending::UsersFault => failure(FailureClass::User, ErrorCode::UnusableData),
            Ending::Success => {
                let content = format!("made by {} under {}", attempt.report.task_id, attempt.report.epoch);
                let (job, epoch) = (attempt.job.clone(), attempt.report.epoch);
                let output = self.upload(content.into_bytes()).await?;
                self.ledger.made(&job, epoch, output.clone());
                let summary = "made".to_owned();
                Some(Outcome::Succeeded(v1::TaskSucceeded { manifest: Some(output.into()), summary }))
            }
        }
    }

    async fn upload(&mut self, content: Vec<u8>) -> Option<ObjectRef> {
        let object = ObjectRef::of(&content);
        let parts = [Part::Header(object.clone().into()), Part::Data(content.into())];
        let messages: Vec<_> = parts.into_iter().map(|part| UploadObjectRequest { part: Some(part) }).collect();
        let mut coordinator = self.any_coordinator();
        coordinator.artifacts.upload_object(futures::stream::iter(messages)).await.ok().map(|_| object)
    }

    fn any_coordinator(&mut self) -> Clients {
        self.coordinators[self.dice.random_range(0..self.coordinators.len())].clone()
    }

    /// Sends a message and returns its answer; `None` if a task ends before the answer arrives.
    async fn synchronize(&mut self) -> Option<Result<v1::SynchronizeResponse, tonic::Status>> {
        self.sequence += 1;
        for attempt in &mut self.attempts {
            attempt.report.beat += 1;
        }
        let running = self.attempts.iter().filter(|attempt| attempt.report.outcome.is_none());
        let next_end = running.clone().map(|attempt| attempt.ends_at).min();
        let request = v1::SynchronizeRequest {
            worker_id: self.id.clone(),
            session_secret: vec![7; SESSION_SECRET_BYTES],
            sequence: self.sequence,
            description: Some(v1::WorkerDescription { slots: SLOTS as u32, ..v1::WorkerDescription::default() }),
            free_slots: SLOTS.saturating_sub(running.count()) as u32,
            leases: self.attempts.iter().map(|attempt| attempt.report.clone()).collect(),
            wait_ms: LEASE_MS / 3,
            ..v1::SynchronizeRequest::default()
        };
        let mut coordinator = self.any_coordinator();
        tokio::select! {
            answer = coordinator.workers.synchronize(request) => Some(answer.map(tonic::Response::into_inner)),
            () = sleep_until(next_end.unwrap_or_else(|| Instant::now() + Duration::from_secs(60))) => None,
        }
    }

    fn obey(&mut self, answer: v1::SynchronizeResponse, sent: Duration) {
        let is = |report: &LeaseReport, key: &v1::LeaseKey| report.task_id == key.task_id && report.epoch == key.epoch;
        let told: Vec<&v1::LeaseKey> = answer.leases.iter().filter_map(|lease| lease.key.as_ref()).collect();
        let ledger = self.ledger.clone();
        self.attempts.retain(|attempt| {
            let is_told = told.iter().any(|key| is(&attempt.report, key)) || attempt.report.outcome.is_some();
            let keeps = is_told && !answer.acknowledged.iter().any(|key| is(&attempt.report, key));
            if !keeps {
                ledger.let_go(&attempt.report.task_id, attempt.report.epoch);
            }
            keeps
        });
        for lease in &answer.leases {
            let key = lease.key.as_ref().expect("a lease has a key");
            let until = sent + Duration::from_millis(lease.ttl_ms.into());
            if let Some(attempt) = self.attempts.iter_mut().find(|attempt| is(&attempt.report, key)) {
                if attempt.report.outcome.is_none() {
                    attempt.until = attempt.until.max(until);
                    attempt.cancelled |= lease.cancel;
                    attempt.report.events.retain(|event| event.sequence > lease.acknowledged_events);
                    // An answer may arrive after the lease that it is about has ended. The attempt is given up then.
                    if attempt.until > now() {
                        self.ledger.hold(&key.task_id, key.epoch, &self.id, now(), attempt.until);
                    }
                }
            } else if let Some(assignment) = lease.assignment.as_ref().filter(|_| until > now()) {
                self.ledger.hold(&key.task_id, key.epoch, &self.id, now(), until);
                let attempt = self.start(key, &assignment.job_id, until);
                self.attempts.push(attempt);
            }
        }
    }

    fn start(&mut self, key: &v1::LeaseKey, job: &str, until: Duration) -> Attempt {
        let ends_how = match self.dice.random_range(0..100) {
            0..65 => Ending::Success,
            65..78 => Ending::Crash,
            78..88 => Ending::Transient,
            88..96 => Ending::Returned,
            _ => Ending::UsersFault,
        };
        let event = |sequence, event| AttemptEvent { sequence, event: Some(event) };
        let log = attempt_event::Event::Log(v1::LogLine { text: format!("{} started", self.id) });
        let mut events = vec![event(1, log)];
        if self.dice.random_range(0..3) == 0 {
            let checkpoint = ObjectRef::of(&key.epoch.to_le_bytes());
            events.push(event(2, attempt_event::Event::Checkpoint(checkpoint.into())));
        }
        let task_id = key.task_id.clone();
        Attempt {
            report: LeaseReport { task_id, epoch: key.epoch, events, ..LeaseReport::default() },
            job: job.to_owned(),
            until,
            ends_at: Instant::now() + Duration::from_millis(self.dice.random_range(50..4_000)),
            ends_how,
            cancelled: false,
        }
    }
}
