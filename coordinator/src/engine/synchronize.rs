//! The one conversation with workers: they say what they are doing, the answer says what they should be doing.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::future;
use sortinghat_proto::{
    Refusal, TaskId, Tenant, WorkerId,
    limits::{MAX_CACHED_MANIFESTS, MAX_LEASES_PER_WORKER},
    time::UnixMs,
    v1,
};
use tokio::time::Instant;

use super::{
    Engine, Shared,
    change::Holding,
    claim::{Claimant, MAX_CLAIMS, Ready},
    companions::Companions,
    keys,
    load::Loaded,
    opening::{Agenda, Opening, took_no_time},
    reports::LeaseReport,
    sessions::{Instruction, LeaseName},
};
use crate::{
    queue::{Lease, Task},
    store::Range,
};

/// A message, parsed.
struct Message {
    worker: Claimant,
    arrived: UnixMs,
    /// For how long its answer may be held, in milliseconds.
    held_ms: u64,
    /// Slots for new tasks.
    free_slots: usize,
    /// It may be the worker's last one.
    draining: bool,
    reports: Vec<LeaseReport>,
    /// Leases that it knows of.
    reported: HashSet<LeaseName>,
}

/// What the reports of a message led to.
struct Intaken {
    /// Outcomes that need not be reported again.
    acknowledged: Vec<v1::LeaseKey>,
    /// Events became durable.
    events_recorded: bool,
    /// Tasks ended that took no time.
    ended_soon: bool,
    /// What the worker holds now, if that is known already.
    held: Option<Vec<Held>>,
}

/// A task that a worker holds.
struct Held {
    name: LeaseName,
    lease: Lease,
    holding: Holding,
}

impl Engine {
    /// Takes in a worker's message and answers what it should be doing. Held while there is nothing new, for at most `wait_ms`
    /// and a third of a lease; a newer message of the same worker ends it with a refusal.
    pub async fn synchronize(&self, mut request: v1::SynchronizeRequest) -> Result<v1::SynchronizeResponse, Refusal> {
        let shared = &self.shared;
        let worker: WorkerId = request.worker_id.parse()?;
        if request.leases.len() > MAX_LEASES_PER_WORKER {
            let message = format!("{} leases are more than {MAX_LEASES_PER_WORKER}", request.leases.len());
            return Err(Refusal::invalid("leases", message));
        }
        if request.cached.len() > MAX_CACHED_MANIFESTS {
            let message = format!("{} cached manifests are more than {MAX_CACHED_MANIFESTS}", request.cached.len());
            return Err(Refusal::invalid("cached", message));
        }
        let reported = request.leases.iter().map(|report| report.task_id.parse());
        let reported = reported.collect::<Result<BTreeSet<TaskId>, Refusal>>()?;
        if request.draining {
            request.free_slots = 0;
        }
        let worker = Claimant::new(worker, request.description.get_or_insert_default());
        // Before the first read, so that no change between read and wait is missed.
        let mut hints = shared.store.hints().listen([keys::worker_topic(&worker.id).as_str()]);
        let agenda = Agenda { worker, reported, capacity: (request.free_slots as usize).min(MAX_CLAIMS) };
        let Opening { arrived, leases, ready } = shared.opening(&agenda).await?;
        let Agenda { worker, capacity, .. } = agenda;
        let mut turn = shared.sessions.enter(&worker.id, &request, arrived)?;
        shared.cached.note(&worker.id, &request.cached);
        let held_ms = u64::from(request.wait_ms).min(shared.rules.lease_ttl_ms / 3);
        let until = Instant::now() + Duration::from_millis(held_ms);
        let message = Arc::new(Message::parse(worker, request, arrived, held_ms)?);
        let taking_in = {
            let (shared, message) = (shared.clone(), message.clone());
            async move { shared.take_in(&message, leases, ready).await }
        };
        let mut intaken = turn.work(taking_in).await?;
        let mut now = arrived;
        loop {
            let mut place = shared.waiting.enter(&message.worker, message.free_slots);
            let held = match intaken.held.take() {
                Some(held) => held,
                None => {
                    let (shared, message) = (shared.clone(), message.clone());
                    turn.work(async move { shared.held_with_claims(&message).await }).await?
                }
            };
            if shared.settings.reads_ahead && intaken.ended_soon && !held.is_empty() {
                let reported = held.iter().map(|held| held.name.0.clone()).collect();
                self.expect(Agenda { worker: message.worker.clone(), reported, capacity });
            }
            let (answer, is_news) = shared.answer(&message, &intaken, held, now).await?;
            if is_news || Instant::now() >= until || shared.draining.is_cancelled() {
                return Ok(answer);
            }
            tokio::select! {
                () = hints.heard() => {}
                () = place.woken() => {}
                () = turn.superseded() => {}
                () = shared.draining.cancelled() => {}
                () = tokio::time::sleep_until(until) => {}
            }
            now = shared.store.now().await?;
        }
    }

    /// The workers that were heard of within the last lease, by host.
    pub async fn list_workers(&self) -> Result<v1::ListWorkersResponse, Refusal> {
        let now = self.shared.store.now().await?;
        Ok(v1::ListWorkersResponse { workers: self.shared.sessions.list(now, self.shared.rules.lease_ttl_ms) })
    }
}

impl Message {
    fn parse(
        worker: Claimant,
        request: v1::SynchronizeRequest,
        arrived: UnixMs,
        held_ms: u64,
    ) -> Result<Self, Refusal> {
        let reports = request.leases.into_iter().map(|report| LeaseReport::parse(report, &worker.id));
        let reports = reports.collect::<Result<Vec<LeaseReport>, Refusal>>()?;
        Ok(Self {
            free_slots: request.free_slots as usize,
            draining: request.draining,
            worker,
            arrived,
            held_ms,
            reported: reports.iter().map(LeaseReport::name).collect(),
            reports,
        })
    }

    /// How many tasks it may claim beside those that its worker holds.
    fn capacity<'h>(&self, held: impl Iterator<Item = &'h LeaseName>) -> usize {
        let unknown = held.filter(|name| !self.reported.contains(name)).count();
        self.free_slots.saturating_sub(unknown).min(MAX_CLAIMS)
    }

    /// The tenants whose slots become free with what it reports, each as often as one does.
    fn freed_slots(&self, leases: &HashMap<TaskId, Loaded>) -> Vec<Tenant> {
        let ended = self.reports.iter().filter(|report| report.outcome.is_some()).filter_map(|report| {
            let loaded = leases.get(&report.task)?;
            let is_held = loaded.task().task.lease().is_some_and(|lease| lease.token == report.token);
            is_held.then(|| loaded.job.value.tenant.clone())
        });
        ended.collect()
    }
}

impl Held {
    /// `None` if it is not this worker that holds it.
    fn of(worker: &WorkerId, holding: Holding) -> Option<Self> {
        let task = &holding.task().task;
        let lease = lease_of(worker, task)?.clone();
        Some(Self { name: (task.id.clone(), lease.token.epoch), lease, holding })
    }
}

/// The lease of this worker on a task.
fn lease_of<'t>(worker: &WorkerId, task: &'t Task) -> Option<&'t Lease> {
    task.lease().filter(|lease| lease.token.worker == *worker)
}

impl Shared {
    /// Takes in what a message reports of these tasks, and claims for its free slots at once, of what is ready if that was read: a
    /// worker that ends tasks gets the next ones with the same sync of the store.
    async fn take_in(
        &self,
        message: &Message,
        leases: HashMap<TaskId, Loaded>,
        ready: Option<Result<Ready, Refusal>>,
    ) -> Result<Intaken, Refusal> {
        let worker = &message.worker.id;
        self.sessions.keep_beats(worker, &message.reported);
        if message.reports.is_empty() {
            return Ok(Intaken { acknowledged: Vec::new(), events_recorded: false, ended_soon: false, held: None });
        }
        let name = |(id, loaded): (&TaskId, &Loaded)| {
            lease_of(worker, &loaded.task().task).map(|lease| (id.clone(), lease.token.epoch))
        };
        let held: Vec<LeaseName> = leases.iter().filter_map(name).collect();
        let capacity = message.capacity(held.iter());
        let first = async {
            Some(match ready.filter(|_| capacity > 0)? {
                Ok(ready) => {
                    let freed = message.freed_slots(&leases);
                    self.find_tasks(&message.worker, capacity, ready, &freed, message.arrived).await
                }
                Err(refusal) => Err(refusal),
            })
        };
        let intakes = message.reports.iter().map(|report| self.intake(report, message.arrived, message.held_ms));
        let (steps, first) = future::join(self.steps(intakes.collect(), &leases), first).await;
        let mut steps = steps?;
        let mut companions = Companions::of(steps.iter_mut().map(|step| step.prepared.take()).collect());
        let claimed = self.claim(&message.worker, capacity, first, &mut companions).await?;
        let applied = companions.outcomes(self).await?;
        let taken = self.take_rest(steps, &leases, applied).await?;
        let acknowledged: Vec<&LeaseReport> =
            message.reports.iter().zip(&taken).filter(|(_, taken)| taken.outcome).map(|(report, _)| report).collect();
        let ended: HashSet<LeaseName> = acknowledged.iter().map(|report| report.name()).collect();
        // Of tasks that go on more has changed than is known here; what is not answered at once is looked at again once the worker
        // waits, so that it misses no task; and an earlier message may have got some since this one's leases were read, which a worker
        // that drains would never hear of.
        let is_known = !message.draining && !ended.is_empty() && held.iter().all(|name| ended.contains(name));
        let held = || claimed.into_iter().filter_map(|holding| Held::of(worker, holding)).collect();
        let ended_soon = |report: &LeaseReport| {
            let lease = leases.get(&report.task).and_then(|loaded| lease_of(worker, &loaded.task().task));
            lease.is_some_and(|lease| took_no_time(lease.started, message.arrived))
        };
        Ok(Intaken {
            ended_soon: acknowledged.iter().any(|report| ended_soon(report)),
            acknowledged: acknowledged.into_iter().map(LeaseReport::key).collect(),
            events_recorded: taken.iter().any(|taken| taken.events),
            held: is_known.then(held),
        })
    }

    /// What a worker holds after a claim for its free slots.
    async fn held_with_claims(&self, message: &Message) -> Result<Vec<Held>, Refusal> {
        let worker = &message.worker.id;
        let tasks = self.held_tasks(worker).await?;
        let held = self.load_held(&tasks).await?;
        let held = held.into_iter().map(Holding::from);
        let mut held: Vec<Held> = held.filter_map(|holding| Held::of(worker, holding)).collect();
        let capacity = message.capacity(held.iter().map(|held| &held.name));
        let claimed = self.claim(&message.worker, capacity, None, &mut Companions::default()).await?;
        held.extend(claimed.into_iter().filter_map(|holding| Held::of(worker, holding)));
        Ok(held)
    }

    /// Everything that the worker should be doing now, and whether it does not know that yet.
    async fn answer(
        &self,
        message: &Message,
        intaken: &Intaken,
        held: Vec<Held>,
        now: UnixMs,
    ) -> Result<(v1::SynchronizeResponse, bool), Refusal> {
        let mut instructions = HashSet::new();
        let mut leases = Vec::with_capacity(held.len());
        for Held { name, lease, holding } in &held {
            let is_known = message.reported.contains(name);
            if !is_known {
                instructions.insert(Instruction::Start(name.clone()));
            }
            if holding.task().task.cancel_requested {
                instructions.insert(Instruction::Cancel(name.clone()));
            }
            if lease.preempted.is_some() {
                instructions.insert(Instruction::GiveWay(name.clone()));
            }
            leases.push(self.told_lease(holding, lease, message.arrived, is_known).await?);
        }
        let running = message.reports.iter().filter(|report| report.outcome.is_none()).map(LeaseReport::name);
        let lost = running.filter(|name| !held.iter().any(|held| held.name == *name));
        instructions.extend(lost.map(Instruction::Stop));
        let is_news = self.sessions.is_news(&message.worker.id, &instructions, now, self.rules.lease_ttl_ms / 3)
            || !intaken.acknowledged.is_empty()
            || intaken.events_recorded;
        let answer = v1::SynchronizeResponse {
            leases,
            acknowledged: intaken.acknowledged.clone(),
            lease_ttl_ms: self.settings.lease_ttl_ms,
        };
        Ok((answer, is_news))
    }

    /// The tasks that a worker holds, as its index says.
    pub(super) async fn held_tasks(&self, worker: &WorkerId) -> Result<Vec<TaskId>, Refusal> {
        let entries = self.store.range(Range::first(keys::held(worker), MAX_LEASES_PER_WORKER)).await?;
        Ok(entries.iter().filter_map(|entry| keys::task_of_entry(entry)).collect())
    }
}
