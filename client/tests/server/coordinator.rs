//! A coordinator in this process, on a free port of loopback.

use sortinghat_client::{Client, Endpoint};
use sortinghat_coordinator::{
    app::App,
    config::{Config, Settings, StoreUrl},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::{hat::Hat, worker::work};

/// A coordinator with its queue in memory. It ends when it is dropped.
pub(crate) struct Coordinator {
    pub(crate) url: String,
    runtime: Runtime,
    stop: CancellationToken,
    _folder: TempDir,
}

impl Coordinator {
    /// Open to everyone.
    pub(crate) fn start() -> Self {
        Self::start_with(Settings::default())
    }

    /// With these settings.
    pub(crate) fn start_with(settings: Settings) -> Self {
        let runtime = Runtime::new().expect("the system starts threads");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let own = Settings {
            listen: "127.0.0.1:0".parse().ok(),
            data_dir: Some(folder.path().to_owned()),
            store: Some(StoreUrl::Memory),
            ..Settings::default()
        };
        let config = Config::resolve(settings.over(own)).expect("valid");
        let app = runtime.block_on(App::build(config, None)).expect("it can listen");
        let url = format!("http://{}", app.address().expect("it listens"));
        let stop = CancellationToken::new();
        runtime.spawn(app.serve(stop.clone().cancelled_owned()));
        Self { url, runtime, stop, _folder: folder }
    }

    /// With a worker and the model stamps/1, and a `hat` whose folder has the photos that the model was made from in `photos`.
    pub(crate) fn with_model() -> (Self, Hat) {
        let coordinator = Self::start();
        coordinator.start_worker();
        let hat = Hat::at(&coordinator.url);
        hat.write_photos();
        for line in ["ingest stamps photos", "finetune stamps"] {
            assert!(hat.run(line).status.success(), "{line}");
        }
        (coordinator, hat)
    }

    /// Starts a worker. It works until the coordinator ends.
    pub(crate) fn start_worker(&self) {
        self.runtime.spawn(work(self.url.clone(), self.client()));
    }

    /// A client of the SDK.
    pub(crate) fn client(&self) -> Client {
        self.wait_for(Client::connect(Endpoint::local(&self.url))).expect("it listens")
    }

    /// Runs what a client does.
    pub(crate) fn wait_for<F: Future>(&self, task: F) -> F::Output {
        self.runtime.block_on(task)
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
