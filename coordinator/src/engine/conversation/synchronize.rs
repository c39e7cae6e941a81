//! `synchronize`: processes one message of a worker, from its arrival to the answer.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::future;
use sortinghat_proto::{
    Refusal, TaskId, WorkerId,
    limits::{MAX_CACHED_MANIFESTS, MAX_LEASES_PER_WORKER},
    time::UnixMs,
    v1,
};
use tokio::time::Instant;

use super::{
    Conversation,
    message::{HeldLease, Message, lease_of},
    prefetch::{Agenda, Opening, took_no_time},
    reports::LeaseReport,
};
use crate::{
    auth::{Caller, Served},
    engine::{
        changes::{Holding, JointCommit, Loaded},
        dispatch::{MAX_CLAIMS, Ready},
        error::EngineError,
        records::keys,
        workers::{Claimant, Instruction, LeaseName},
    },
};

/// The result of the reports of a message.
struct TakenIn {
    /// The leases whose outcome need not be reported again.
    acknowledged: Vec<v1::LeaseKey>,
    /// Events have become durable.
    events_recorded: bool,
    /// A task has ended that took hardly any time.
    ended_soon: bool,
    /// The tasks that the worker holds now, if they are known without another read.
    held: Option<Vec<HeldLease>>,
}

impl Conversation {
    /// Processes a worker's message, which came from this caller, and answers what the worker should be doing. The answer is held while there is nothing new, for at
    /// most `wait_ms` and at most a third of a lease. A newer message of the same worker ends the held call with a refusal.
    pub(crate) async fn synchronize(
        self: &Arc<Self>,
        caller: &Caller,
        mut request: v1::SynchronizeRequest,
    ) -> Result<v1::SynchronizeResponse, EngineError> {
        let worker: WorkerId = request.worker_id.parse()?;
        if request.leases.len() > MAX_LEASES_PER_WORKER {
            let message = format!("{} leases are more than {MAX_LEASES_PER_WORKER}", request.leases.len());
            return Err(Refusal::invalid("leases", message).into());
        }
        if request.cached.len() > MAX_CACHED_MANIFESTS {
            let message = format!("{} cached manifests are more than {MAX_CACHED_MANIFESTS}", request.cached.len());
            return Err(Refusal::invalid("cached", message).into());
        }
        let reported = request.leases.iter().map(|report| report.task_id.parse());
        let reported = reported.collect::<Result<BTreeSet<TaskId>, Refusal>>()?;
        // Last, since it writes a record.
        self.check_session(caller, &worker, &request.session_secret).await?;
        let is_able = request.health.as_ref().is_none_or(|health| health.is_able);
        if request.draining || !is_able {
            request.free_slots = 0;
        }
        let worker = Claimant::new(worker, caller, request.description.get_or_insert_default());
        // Listening must begin before the first read, so that no change between the read and the wait is missed.
        let mut hints = self.records.store.hints().listen([keys::worker_topic(&worker.id).as_str()]);
        let agenda = Agenda { worker, reported, capacity: (request.free_slots as usize).min(MAX_CLAIMS) };
        let Opening { arrived, mut leases, ready } = self.prefetch.opening(&agenda).await?;
        let Agenda { worker, capacity, .. } = agenda;
        leases.retain(|_, loaded| worker.ability.serves.has(&loaded.job.value.tenant));
        let mut turn = self.workers.sessions.enter(&worker, &request, arrived)?;
        self.workers.caches.note(&worker.id, &request.cached);
        let held_ms = u64::from(request.wait_ms).min(self.context.rules.lease_ttl_ms / 3);
        let until = Instant::now() + Duration::from_millis(held_ms);
        let message = Arc::new(Message::parse(worker, request, arrived, held_ms)?);
        let taking_in = {
            let (conversation, message) = (self.clone(), message.clone());
            async move { conversation.take_in(&message, leases, ready).await }
        };
        let mut taken_in = turn.work(taking_in).await?;
        let mut now = arrived;
        loop {
            let mut place = self.workers.waiting.enter(&message.worker, message.free_slots);
            let held = match taken_in.held.take() {
                Some(held) => held,
                None => {
                    let (conversation, message) = (self.clone(), message.clone());
                    turn.work(async move { conversation.held_with_claims(&message).await }).await?
                }
            };
            if taken_in.ended_soon && !held.is_empty() {
                let reported = held.iter().map(|held| held.name.0.clone()).collect();
                self.prefetch.expect(Agenda { worker: message.worker.clone(), reported, capacity });
            }
            let (answer, is_news) = self.answer(&message, &taken_in, held, now).await?;
            if is_news || Instant::now() >= until || self.context.draining.is_cancelled() {
                return Ok(answer);
            }
            tokio::select! {
                () = hints.heard() => {}
                () = place.woken() => {}
                () = turn.superseded() => {}
                () = self.context.draining.cancelled() => {}
                () = tokio::time::sleep_until(until) => {}
            }
            now = self.records.store.now().await?;
        }
    }

    /// Lists the workers that have sent a message within the length of a lease, by host, each with the tenants that it serves.
    pub(crate) async fn list_workers(&self) -> Result<Vec<(v1::Worker, Served)>, EngineError> {
        let now = self.records.store.now().await?;
        Ok(self.workers.sessions.list(now, self.context.rules.lease_ttl_ms))
    }
}

impl Conversation {
    /// Records the reports of a message on these tasks, and leases ready tasks for the worker's free slots in the same commit. So a worker
    /// that ends tasks gets the next ones with the same sync of the store.
    async fn take_in(
        &self,
        message: &Message,
        leases: HashMap<TaskId, Loaded>,
        ready: Option<Result<Ready, EngineError>>,
    ) -> Result<TakenIn, EngineError> {
        let worker = &message.worker.id;
        self.workers.sessions.keep_beats(worker, &message.reported);
        if message.reports.is_empty() {
            return Ok(TakenIn { acknowledged: Vec::new(), events_recorded: false, ended_soon: false, held: None });
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
                    self.dispatch.plan(&message.worker, capacity, ready, &freed, message.arrived).await
                }
                Err(error) => Err(error),
            })
        };
        let incoming = message.reports.iter().map(|report| self.incoming(report, message.arrived, message.held_ms));
        let (steps, first) = future::join(self.steps(incoming.collect(), &leases), first).await;
        let mut steps = steps?;
        let mut joint = JointCommit::of(steps.iter_mut().map(|step| step.prepared.take()).collect());
        let claimed = self.claim(&message.worker, capacity, first, &mut joint).await?;
        let applied = joint.outcomes(&self.changes).await?;
        let taken = self.take_rest(steps, &leases, applied).await?;
        let acknowledged: Vec<&LeaseReport> =
            message.reports.iter().zip(&taken).filter(|(_, taken)| taken.outcome).map(|(report, _)| report).collect();
        let ended: HashSet<LeaseName> = acknowledged.iter().map(|report| report.name()).collect();
        // The held tasks are known here only if every held task has ended, since tasks that go on have changed more than is known here. If
        // nothing has ended, the answer may be held, and the worker must look again after it has begun to wait, so that it misses no task.
        // If the worker is draining, they must be read again, since an earlier message may have claimed tasks after this message's leases
        // were read, and a draining worker would never hear of them.
        let is_known = !message.draining && !ended.is_empty() && held.iter().all(|name| ended.contains(name));
        let held = || claimed.into_iter().filter_map(|holding| HeldLease::of(&message.worker, holding)).collect();
        let ended_soon = |report: &LeaseReport| {
            let lease = leases.get(&report.task).and_then(|loaded| lease_of(worker, &loaded.task().task));
            lease.is_some_and(|lease| took_no_time(lease.started, message.arrived))
        };
        Ok(TakenIn {
            ended_soon: acknowledged.iter().any(|report| ended_soon(report)),
            acknowledged: acknowledged.into_iter().map(LeaseReport::key).collect(),
            events_recorded: taken.iter().any(|taken| taken.events),
            held: is_known.then(held),
        })
    }

    /// Claims tasks for the worker's free slots, and returns all tasks that the worker holds then.
    async fn held_with_claims(&self, message: &Message) -> Result<Vec<HeldLease>, EngineError> {
        let worker = &message.worker.id;
        let held = self.prefetch.held(worker).await?.into_iter().map(Holding::from);
        let mut held: Vec<HeldLease> = held.filter_map(|holding| HeldLease::of(&message.worker, holding)).collect();
        let capacity = message.capacity(held.iter().map(|held| &held.name));
        let claimed = self.claim(&message.worker, capacity, None, &mut JointCommit::default()).await?;
        held.extend(claimed.into_iter().filter_map(|holding| HeldLease::of(&message.worker, holding)));
        Ok(held)
    }

    /// The answer, which says everything that the worker should be doing now, and whether the answer has news for the worker.
    async fn answer(
        &self,
        message: &Message,
        taken_in: &TakenIn,
        held: Vec<HeldLease>,
        now: UnixMs,
    ) -> Result<(v1::SynchronizeResponse, bool), EngineError> {
        let mut instructions = HashSet::new();
        let mut leases = Vec::with_capacity(held.len());
        for HeldLease { name, lease, holding } in &held {
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
        let is_news =
            self.workers.sessions.is_news(&message.worker.id, &instructions, now, self.context.rules.lease_ttl_ms / 3)
                || !taken_in.acknowledged.is_empty()
                || taken_in.events_recorded;
        let answer = v1::SynchronizeResponse {
            leases,
            acknowledged: taken_in.acknowledged.clone(),
            lease_ttl_ms: self.context.settings.lease_ttl_ms,
            queue_id: self.collection.owner(),
        };
        Ok((answer, is_news))
    }
}
