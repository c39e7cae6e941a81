//! Keeps checkpoints while training goes on. They are copied between two steps, and written and stored on another thread.

use std::{
    panic,
    thread::{Scope, ScopedJoinHandle},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    task::{JobContext, JobError},
    training::{
        checkpoint::{Checkpoint, Position},
        trainer::Snapshot,
    },
};

/// Stores checkpoints, at most one at a time, and reports each once it is durable.
///
/// If a checkpoint is due while another one is being stored, it is taken after the first step that finds the other one stored. At the
/// end of an epoch, and when the task is handed back, training waits for the other one instead.
pub(super) struct Keeper<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    context: &'env JobContext,
    interval: Duration,
    last_copied: Instant,
    under_way: Option<UnderWay<'scope>>,
    /// The position of the last checkpoint that was stored; at first the position at which the run began.
    stored: Position,
    /// Whether the last checkpoint could not be stored.
    is_failing: bool,
}

struct UnderWay<'scope> {
    position: Position,
    thread: ScopedJoinHandle<'scope, Result<(), JobError>>,
}

impl<'scope, 'env> Keeper<'scope, 'env> {
    /// A keeper for a run that begins at `start`. No checkpoint is needed there: either one is stored, or it is the beginning.
    pub(super) fn new(scope: &'scope Scope<'scope, 'env>, context: &'env JobContext, start: Position) -> Self {
        let interval = context.machine().checkpoint_interval;
        Self {
            scope,
            context,
            interval,
            last_copied: Instant::now(),
            under_way: None,
            stored: start,
            is_failing: false,
        }
    }

    /// Is called after a step: keeps a checkpoint if one is due and no other is being stored.
    pub(super) fn step(&mut self, snapshot: &Snapshot<'_>) {
        let is_busy = self.under_way.as_ref().is_some_and(|under_way| !under_way.thread.is_finished());
        if !is_busy && self.last_copied.elapsed() >= self.interval {
            self.keep(snapshot);
        }
    }

    /// Keeps a checkpoint, after the one that is being stored. Returns when the new one is copied.
    pub(super) fn keep(&mut self, snapshot: &Snapshot<'_>) {
        self.wait();
        self.last_copied = Instant::now();
        let (position, context) = (snapshot.position(), self.context);
        if self.stored == position {
            return;
        }
        match snapshot.copy() {
            Ok(copy) => {
                let thread = self.scope.spawn(move || store(context, copy));
                self.under_way = Some(UnderWay { position, thread });
            }
            Err(error) => self.failed(&JobError::Internal(error.to_string())),
        }
    }

    /// Waits until the last checkpoint is stored and reported.
    pub(super) fn wait(&mut self) {
        let Some(UnderWay { position, thread }) = self.under_way.take() else { return };
        match thread.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked)) {
            Ok(()) => (self.stored, self.is_failing) = (position, false),
            Err(error) => self.failed(&error),
        }
    }

    /// Training goes on if a checkpoint could not be stored. What was learned since the last one is lost only if this process dies too.
    fn failed(&mut self, error: &JobError) {
        tracing::warn!(%error, "a checkpoint could not be stored");
        if !std::mem::replace(&mut self.is_failing, true) {
            self.context.warn(format!("training goes on without a new checkpoint: {error}"));
        }
    }
}

fn store(context: &JobContext, copy: Checkpoint) -> Result<(), JobError> {
    let bytes = copy.into_bytes();
    let bytes = bytes.map_err(|error| JobError::Internal(format!("failed to write a checkpoint: {error}")))?;
    // Training goes on without a checkpoint, so it does not wait for a store that does not answer.
    context.checkpoint(context.objects().without_waiting().put(bytes)?);
    Ok(())
}
