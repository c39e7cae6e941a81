//! What runs beside the server: threads for bulk calls, and the background loops.

use std::sync::Arc;

use sortinghat_pages::Probes;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Handle, Runtime},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    engine::{Engine, ObjectInventory},
    metrics,
    objects::Objects,
};

/// Separate threads for some of the calls. When this is dropped, each task on them ends where it waits next.
pub(super) struct Threads(Option<Runtime>);

impl Threads {
    /// Starts threads with this name.
    pub(super) fn start(name: &str) -> Self {
        let runtime = Builder::new_multi_thread().thread_name(name).enable_all().build();
        Self(Some(runtime.expect("the system starts threads")))
    }

    /// The runtime that the threads belong to.
    pub(super) fn handle(&self) -> Handle {
        self.0.as_ref().expect("the runtime is taken only on drop").handle().clone()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// The loops that run beside the server.
pub(super) struct Background {
    stop: CancellationToken,
    pub(super) sweeps: JoinHandle<()>,
    collection: Option<JoinHandle<()>>,
    discards: JoinHandle<()>,
    pages: Option<JoinHandle<std::io::Result<()>>>,
}

impl Background {
    /// Starts the sweeps, the collection of objects in `collected`, and the pages on `metrics_listener`, which say what
    /// `probes` says.
    pub(super) fn start(
        engine: &Engine,
        collected: Option<Objects>,
        metrics_listener: Option<TcpListener>,
        probes: &Probes,
    ) -> Self {
        let stop = CancellationToken::new();
        let (sweeper, sweeps_stop) = (engine.clone(), stop.clone());
        let sweeps = tokio::spawn(async move { sweeper.run(sweeps_stop).await });
        let collected = collected.map(|objects| Arc::new(objects) as Arc<dyn ObjectInventory>);
        let collection = collected.clone().map(|objects| {
            let (collector, stop) = (engine.clone(), stop.clone());
            tokio::spawn(async move { collector.run_collection(objects, stop).await })
        });
        let (discarder, discards_stop) = (engine.clone(), stop.clone());
        let discards = tokio::spawn(async move { discarder.run_discards(collected, discards_stop).await });
        let pages = metrics_listener
            .map(|listener| tokio::spawn(metrics::serve(listener, engine.clone(), probes.clone(), stop.clone())));
        Self { stop, sweeps, collection, discards, pages }
    }

    /// Stops all loops and waits until they have ended.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        let loops = [
            ("sweeps", Some(self.sweeps)),
            ("collection of objects", self.collection),
            ("removal of checkpoints", Some(self.discards)),
        ];
        for (name, ended) in loops {
            if let Some(ended) = ended
                && let Err(error) = ended.await
            {
                tracing::error!(%error, "the {name} ended with a defect");
            }
        }
        if let Some(pages) = self.pages
            && let Ok(Err(error)) = pages.await
        {
            tracing::error!(%error, "the metrics server failed");
        }
    }
}
