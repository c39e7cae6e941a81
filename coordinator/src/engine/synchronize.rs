//! The one conversation with workers: they say what they are doing, the answer says what they should be doing.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use sortinghat_proto::{Refusal, WorkerId, limits::MAX_CACHED_MANIFESTS, time::UnixMs, v1};
use tokio::{sync::broadcast, time::Instant};

use super::{
    Engine, Shared,
    claim::Claimant,
    keys,
    load::Loaded,
    reports::LeaseReport,
    sessions::{Instruction, LeaseName, Turn},
};
use crate::{
    queue::{Capabilities, Lease},
    store::{HINTS_LOST, Range},
};

/// Leases that one message may report, and that one worker may hold.
const MAX_LEASES_PER_WORKER: usize = 1_000;
/// Reports that are taken in side by side, to share the store's commits.
const REPORTS_AT_A_TIME: usize = 32;

/// A message, parsed, and what its reports led to.
struct Message {
    worker: Claimant,
    arrived: UnixMs,
    /// Slots for new tasks; 0 for a worker that drains.
    free_slots: usize,
    /// Leases that it knows of.
    reported: HashSet<LeaseName>,
    /// Those of them that it runs, as far as it knows.
    running: HashSet<LeaseName>,
    /// Outcomes that it need not report again.
    acknowledged: Vec<v1::LeaseKey>,
    /// Events became durable.
    events_recorded: bool,
}

impl Engine {
    /// Takes in a worker's message and answers what it should be doing. Held while there is nothing new, for at most `wait_ms`
    /// and a third of a lease; a newer message of the same worker ends it with a refusal.
    pub async fn synchronize(&self, request: v1::SynchronizeRequest) -> Result<v1::SynchronizeResponse, Refusal> {
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
        let arrived = shared.store.now().await?;
        // Before the first read, so that no change between read and wait is missed.
        let mut hints = shared.store.hints();
        let mut turn = shared.sessions.enter(&worker, &request, arrived)?;
        shared.cached.note(&worker, &request.cached);
        let held_ms = u64::from(request.wait_ms).min(shared.rules.lease_ttl_ms / 3);
        let until = Instant::now() + Duration::from_millis(held_ms);
        let message = shared.take_message(worker, request, arrived, held_ms).await?;
        loop {
            turn.check()?;
            let (answer, is_news) = shared.answer(&message).await?;
            if is_news || Instant::now() >= until || shared.draining.is_cancelled() {
                return Ok(answer);
            }
            shared.wait(&message, &mut hints, &mut turn, until).await;
        }
    }

    /// The workers that were heard of within the last lease, by host.
    pub async fn list_workers(&self) -> Result<v1::ListWorkersResponse, Refusal> {
        let now = self.shared.store.now().await?;
        Ok(v1::ListWorkersResponse { workers: self.shared.sessions.list(now, self.shared.rules.lease_ttl_ms) })
    }
}

impl Shared {
    /// Takes in what a message reports; its answer may be held for `held_ms`.
    async fn take_message(
        &self,
        worker: WorkerId,
        request: v1::SynchronizeRequest,
        arrived: UnixMs,
        held_ms: u64,
    ) -> Result<Message, Refusal> {
        let reports: Result<Vec<LeaseReport>, Refusal> =
            request.leases.into_iter().map(|report| LeaseReport::parse(report, &worker)).collect();
        let reports = reports?;
        let name = |report: &LeaseReport| (report.task.clone(), report.token.epoch);
        let reported = reports.iter().map(name).collect();
        let running = reports.iter().filter(|report| report.outcome.is_none()).map(name).collect();
        self.sessions.keep_beats(&worker, &reported);
        let takes: Vec<_> = reports.iter().map(|report| self.take(report, arrived, held_ms)).collect();
        let taken: Vec<_> = stream::iter(takes).buffered(REPORTS_AT_A_TIME).try_collect().await?;
        let acknowledged = reports
            .iter()
            .zip(&taken)
            .filter(|(_, taken)| taken.outcome)
            .map(|(report, _)| v1::LeaseKey { task_id: report.task.to_string(), epoch: report.token.epoch });
        let acknowledged = acknowledged.collect();
        let description = request.description.unwrap_or_default();
        let capabilities = Capabilities::from(&description);
        Ok(Message {
            acknowledged,
            events_recorded: taken.iter().any(|taken| taken.events),
            free_slots: if request.draining { 0 } else { request.free_slots as usize },
            worker: Claimant { id: worker, host: super::bounded(description.host), capabilities },
            arrived,
            reported,
            running,
        })
    }

    /// Everything that the worker should be doing now, and whether it does not know that yet.
    async fn answer(&self, message: &Message) -> Result<(v1::SynchronizeResponse, bool), Refusal> {
        let mut held = self.held(&message.worker.id).await?;
        let unknown = held.iter().filter(|(_, lease)| !message.reported.contains(&lease.0)).count();
        let capacity = message.free_slots.saturating_sub(unknown);
        if self.claim(&message.worker, capacity).await? > 0 {
            held = self.held(&message.worker.id).await?;
        }
        let mut instructions = HashSet::new();
        let mut leases = Vec::with_capacity(held.len());
        for (loaded, (name, lease)) in &held {
            let is_known = message.reported.contains(name);
            if !is_known {
                instructions.insert(Instruction::Start(name.clone()));
            }
            if loaded.task.value.task.cancel_requested {
                instructions.insert(Instruction::Cancel(name.clone()));
            }
            if lease.preempted.is_some() {
                instructions.insert(Instruction::GiveWay(name.clone()));
            }
            leases.push(self.told_lease(loaded, lease, message.arrived, is_known).await?);
        }
        let is_held = |name: &&LeaseName| held.iter().any(|(_, (held, _))| held == *name);
        let lost = message.running.iter().filter(|name| !is_held(name));
        instructions.extend(lost.cloned().map(Instruction::Stop));
        let now = self.store.now().await?;
        let is_news = self.sessions.is_news(&message.worker.id, &instructions, now, self.rules.lease_ttl_ms / 3)
            || !message.acknowledged.is_empty()
            || message.events_recorded;
        let answer = v1::SynchronizeResponse {
            leases,
            acknowledged: message.acknowledged.clone(),
            lease_ttl_ms: self.settings.lease_ttl_ms,
        };
        Ok((answer, is_news))
    }

    /// The leases that a worker holds.
    async fn held(&self, worker: &WorkerId) -> Result<Vec<(Loaded, (LeaseName, Lease))>, Refusal> {
        let entries = self.store.range(Range::first(keys::held(worker), MAX_LEASES_PER_WORKER)).await?;
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<_> = entries.iter().filter_map(|entry| keys::task_of_entry(entry)).collect();
        let with_lease = |loaded: Loaded| {
            let task = &loaded.task.value.task;
            let lease = task.lease().filter(|lease| lease.token.worker == *worker)?.clone();
            let name = (task.id.clone(), lease.token.epoch);
            Some((loaded, (name, lease)))
        };
        Ok(self.load(&ids).await?.into_iter().filter_map(with_lease).collect())
    }

    /// Returns when there may be something new for a worker.
    async fn wait(
        &self,
        message: &Message,
        hints: &mut broadcast::Receiver<Arc<str>>,
        turn: &mut Turn,
        until: Instant,
    ) {
        let own_topic = keys::worker_topic(&message.worker.id);
        let takes_more = message.free_slots > 0;
        let is_for_it = |topic: &str| topic == own_topic || takes_more && topic == keys::READY;
        let poll = Instant::now() + Duration::from_millis(self.settings.poll_ms);
        tokio::select! {
            () = hinted(hints, is_for_it) => {}
            () = turn.superseded() => {}
            () = self.draining.cancelled() => {}
            () = tokio::time::sleep_until(until.min(poll)) => {}
        }
    }
}

/// Returns at a hint of an interesting topic, or if hints were lost.
pub(super) async fn hinted(hints: &mut broadcast::Receiver<Arc<str>>, is_interesting: impl Fn(&str) -> bool) {
    loop {
        match hints.recv().await {
            Ok(topic) if &*topic != HINTS_LOST && !is_interesting(&topic) => {}
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
            // The store is gone; polling will tell.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}
