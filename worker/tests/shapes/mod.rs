//! Runs jobs without a worker process or a coordinator, over a temporary object store, on tiny photos of coloured shapes.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use sortinghat_objects::ObjectStoreUrl;
use sortinghat_photos::derivative::encode_png;
use sortinghat_proto::{
    BaseRate, DatasetRef, EvaluateOn, EvaluateSpec, FineTune, FinetuneSpec, IngestSpec, JobId, JobSpec, ModelRef,
    ObjectRef, Precision, Recipe, Split, TaskId, Tenant, WeightsSource,
    executor::v1::{ExecutorReport, executor_report::Report},
    layout::LayoutChoice,
    manifest::{UploadManifest, UploadedFile},
    time::UnixMs,
    v1::{self, attempt_event::Event},
};
use sortinghat_worker::{
    broker::{Broker, BrokerOptions, Connection, Grant, WebOptions},
    device::{self, DeviceRequest},
    jobs::{self, WarmModel},
    objects::TenantObjects,
    task::{Artifact, Done, JobContext, JobError, JobOutput, Machine, Part, StopSignal, Task},
};
use tempfile::TempDir;

/// When every job was submitted: 2026-11-30 08:00 UTC.
const SUBMITTED: UnixMs = UnixMs(1_796_025_600_000);
/// Sides of a photo in pixels.
const WIDTH: u32 = 80;
const HEIGHT: u32 = 64;

/// A machine with an object store of its own.
pub(crate) struct Bench {
    machine: Arc<Machine>,
    _connection: Connection,
    _broker: Broker,
    _folder: TempDir,
}

/// What a job said while it ran, and how it ended.
pub(crate) struct Ran {
    pub(crate) result: Result<Done, JobError>,
    pub(crate) events: Vec<Event>,
}

impl Ran {
    pub(crate) fn output(self) -> JobOutput {
        match self.result.unwrap() {
            Done::Made(output) => output,
            Done::Counted { items } => panic!("counted {items} items instead"),
        }
    }

    pub(crate) fn epochs(&self) -> Vec<v1::EpochMetrics> {
        let epoch = |event: &Event| match event {
            Event::EpochFinished(metrics) => Some(*metrics),
            _ => None,
        };
        self.events.iter().filter_map(epoch).collect()
    }

    pub(crate) fn checkpoints(&self) -> Vec<ObjectRef> {
        let checkpoint = |event: &Event| match event {
            Event::Checkpoint(object) => Some(object.clone().try_into().unwrap()),
            _ => None,
        };
        self.events.iter().filter_map(checkpoint).collect()
    }

    pub(crate) fn notices(&self) -> Vec<String> {
        let notice = |event: &Event| match event {
            Event::Notice(notice) => Some(notice.message.clone()),
            _ => None,
        };
        self.events.iter().filter_map(notice).collect()
    }
}

/// What a task reads besides its spec.
#[derive(Default)]
pub(crate) struct Inputs {
    pub(crate) dataset: Option<ObjectRef>,
    pub(crate) model: Option<ObjectRef>,
    pub(crate) checkpoint: Option<ObjectRef>,
    pub(crate) memory_failures: u32,
    /// The whole job unless a test says otherwise.
    pub(crate) part: Option<Part>,
}

impl Bench {
    /// A bench whose trainings keep checkpoints at the end of epochs only.
    pub(crate) fn new() -> Self {
        Self::with_checkpoints_every(Duration::from_secs(3600))
    }

    pub(crate) fn with_checkpoints_every(checkpoint_interval: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        std::fs::create_dir(&store).unwrap();
        let url = ObjectStoreUrl::of_folder(&store).unwrap();
        let [cache_dir, weights_dir, temporary_dir] = ["cache", "weights", "tmp"].map(|name| folder.path().join(name));
        let options = BrokerOptions {
            object_store: url,
            tenant_profiles: Vec::new(),
            cache_dir,
            cache_bytes: 1 << 30,
            weights_dir,
            shows_hub_token: false,
            web: WebOptions::default(),
        };
        let broker = Broker::open(&options).unwrap();
        let (connection, socket) = broker.connect().unwrap();
        connection.grant(Some(Grant::of_tenant(Tenant::local())));
        let objects = TenantObjects::over(socket).unwrap();
        let compute = device::choose(DeviceRequest::Cpu, Some(2)).unwrap();
        let machine = Arc::new(Machine { compute, objects, temporary_dir, checkpoint_interval });
        Self { machine, _connection: connection, _broker: broker, _folder: folder }
    }

    pub(crate) fn objects(&self) -> TenantObjects {
        self.machine.objects.clone()
    }

    /// Runs a job to its end.
    pub(crate) fn run(&self, spec: JobSpec, inputs: Inputs) -> Ran {
        self.run_until(spec, inputs, |_, _| {})
    }

    /// Runs a job, and lets `hear` stop it at a report.
    pub(crate) fn run_until(
        &self,
        spec: JobSpec,
        inputs: Inputs,
        mut hear: impl FnMut(&Report, &StopSignal) + Send + 'static,
    ) -> Ran {
        let (sender, reports) = mpsc::channel::<ExecutorReport>();
        let stop = Arc::new(StopSignal::default());
        let signal = stop.clone();
        let listener = std::thread::spawn(move || {
            let mut events = Vec::new();
            for report in reports.into_iter().filter_map(|report| report.report) {
                hear(&report, &signal);
                if let Report::Event(event) = report {
                    events.extend(event.event);
                }
            }
            events
        });
        let artifact = |manifest: Option<ObjectRef>, name: &str| {
            manifest.map(|manifest| Artifact { name: name.to_owned(), manifest })
        };
        let task = Task {
            id: TaskId::new(JobId::new(1, 1), 0),
            epoch: 1,
            attempt: 1,
            tenant: Tenant::local(),
            spec,
            dataset: artifact(inputs.dataset, "shapes@1"),
            model: artifact(inputs.model, "shapes/1"),
            checkpoint: inputs.checkpoint,
            memory_failures: inputs.memory_failures,
            part: inputs.part.unwrap_or(Part::Whole { max_items: None }),
            submitted: Some(SUBMITTED),
        };
        let result = {
            let context = JobContext::new(task, self.machine.clone(), sender, stop);
            jobs::run(&context, &mut WarmModel::default())
        };
        Ran { result, events: listener.join().unwrap() }
    }

    /// Runs a job in shards of so many items, as a coordinator would divide it, and returns what its finish made.
    pub(crate) fn run_in_shards(&self, spec: &JobSpec, model: Option<&ObjectRef>, shard_items: u64) -> JobOutput {
        let run = |part| {
            let inputs = Inputs { model: model.cloned(), part: Some(part), ..Inputs::default() };
            self.run(spec.clone(), inputs)
        };
        let items = match run(Part::Whole { max_items: Some(shard_items) }).result.unwrap() {
            Done::Counted { items } => items,
            Done::Made(output) => panic!("{} in one task", output.summary),
        };
        let starts = (0..items).step_by(shard_items as usize);
        let shards: Vec<ObjectRef> =
            starts.map(|start| run(Part::Shard(start..items.min(start + shard_items))).output().manifest).collect();
        assert!(shards.len() > 1, "{items} items are one shard");
        run(Part::Finish(shards)).output()
    }

    /// Stores files and the manifest that lists them in this order.
    pub(crate) fn upload(&self, files: &[(String, Vec<u8>)]) -> ObjectRef {
        let objects = self.objects();
        let files = files.iter().map(|(path, bytes)| UploadedFile::new(path, objects.put(bytes.clone()).unwrap()));
        objects.put_document(&UploadManifest::of(files.collect())).unwrap()
    }

    /// A dataset of `per_class` photos of each shape, made by ingest.
    pub(crate) fn dataset(&self, per_class: u32, split: Split) -> ObjectRef {
        self.ingested(&shapes(per_class), split)
    }

    /// A dataset that ingest makes of files.
    pub(crate) fn ingested(&self, files: &[(String, Vec<u8>)], split: Split) -> ObjectRef {
        let spec = IngestSpec {
            dataset_name: "shapes".parse().unwrap(),
            source: self.upload(files),
            split,
            seed: 1,
            allow_failures: false,
            derivative_short_side_px: 512,
            layout: LayoutChoice::Auto,
        };
        self.run(JobSpec::Ingest(spec), Inputs::default()).output().manifest
    }

    /// A model of [`finetune`] after `epochs`, and its dataset.
    pub(crate) fn model(&self, epochs: u32) -> ObjectRef {
        let dataset = Some(self.dataset(20, Split::ValidPercent(25)));
        let spec = finetune_with(FineTune { epochs, ..options() });
        self.run(JobSpec::Finetune(spec), Inputs { dataset, ..Inputs::default() }).output().manifest
    }
}

/// Two short epochs.
pub(crate) fn options() -> FineTune {
    FineTune { freeze_epochs: 1, epochs: 1, base_lr: BaseRate::Given(4e-3), batch_size: 10, ..FineTune::default() }
}

/// [`finetune`] with other options.
pub(crate) fn finetune_with(options: FineTune) -> FinetuneSpec {
    FinetuneSpec { recipe: Recipe::Fastai2(options), ..finetune() }
}

/// ResNet-18 from random weights on 32 x 32 pixels: seconds on any machine.
pub(crate) fn finetune() -> FinetuneSpec {
    FinetuneSpec {
        dataset: DatasetRef::parse("shapes@1", "").unwrap(),
        model_name: None,
        backbone: sortinghat_proto::Backbone::Resnet18,
        weights: WeightsSource::Random,
        recipe: Recipe::Fastai2(options()),
        image_size_px: 32,
        seed: 3,
        fold: None,
        precision: sortinghat_proto::Precision::F32,
    }
}

/// A plain evaluation on what was held out.
pub(crate) fn evaluate() -> EvaluateSpec {
    let model = ModelRef::parse("shapes/1", "").unwrap();
    EvaluateSpec { model, on: EvaluateOn::HeldOut, tta: None, seed: 5, decisions: None, precision: Precision::Auto }
}

/// Red discs and blue squares: path and PNG.
pub(crate) fn shapes(per_class: u32) -> Vec<(String, Vec<u8>)> {
    let classes = [("disc", true), ("square", false)];
    let photo = |(class, is_disc): (&str, bool), index| (format!("{class}/{index:03}.png"), shape(is_disc, index));
    classes.into_iter().flat_map(|class| (0..per_class).map(move |index| photo(class, index))).collect()
}

/// A shape whose place, size and shade depend on `index`, on a textured ground, so that no two are near-duplicates.
pub(crate) fn shape(is_disc: bool, index: u32) -> Vec<u8> {
    let mut noise = Noise(u64::from(index) * 2 + u64::from(is_disc) + 1);
    let (x0, y0) = (22 + noise.below(36), 20 + noise.below(24));
    let radius = 9 + noise.below(9);
    let ground: Vec<u32> = (0..(WIDTH / 8) * (HEIGHT / 8)).map(|_| 90 + noise.below(120)).collect();
    let mut pixels = Vec::with_capacity((WIDTH * HEIGHT * 3) as usize);
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            let (dx, dy) = (x.abs_diff(x0), y.abs_diff(y0));
            let inside = if is_disc { dx * dx + dy * dy < radius * radius } else { dx.max(dy) < radius };
            let grey = ground[((y / 8) * (WIDTH / 8) + x / 8) as usize] as u8;
            pixels.extend(match (inside, is_disc) {
                (true, true) => [230, 30, 30],
                (true, false) => [30, 30, 230],
                (false, _) => [grey; 3],
            });
        }
    }
    encode_png(WIDTH, HEIGHT, &pixels)
}

/// A photo of nothing.
pub(crate) fn white() -> Vec<u8> {
    encode_png(WIDTH, HEIGHT, &[255; (WIDTH * HEIGHT * 3) as usize])
}

struct Noise(u64);

impl Noise {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as u32) % bound
    }
}
