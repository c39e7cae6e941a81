//! The command line. Every flag can also be set by the environment variable that `--help` shows beside it.

use std::{collections::BTreeMap, env, ffi::OsString, net::SocketAddr, num::NonZeroUsize, path::PathBuf, thread};

use clap::{Args, Parser, Subcommand, ValueEnum};
use sortinghat_objects::ObjectStoreUrl;
use sortinghat_proto::{ByteCount, Label, Refusal, Tenant, limits::MAX_WORKER_LABELS, secrets::refuse_secrets};
use url::Url;

use crate::{
    device::DeviceRequest,
    fetch::{Allowance, Rights},
    memory,
};

/// Runs sortinghat's jobs on this machine.
#[derive(Debug, Parser)]
#[command(name = "sortinghat-worker", version)]
pub struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Takes tasks from a coordinator until it is stopped.
    Run(Box<RunArgs>),
    /// Says which device would compute, and why.
    Devices(ComputeArgs),
    /// Runs one task at a time for a worker, which starts it and talks to it on its standard input.
    #[command(hide = true)]
    Executor(ExecutorArgs),
}

/// A worker's settings.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The coordinator's address, http://HOST:PORT or https://HOST:PORT
    #[arg(long, env = "SORTINGHAT_COORDINATOR", hide_env_values = true, default_value = "http://127.0.0.1:7878", value_parser = address)]
    pub coordinator: Url,
    /// Tasks to run at a time, each in its own process
    #[arg(long, env = "SORTINGHAT_SLOTS", default_value = "1")]
    pub slots: NonZeroUsize,
    /// A label that jobs can require of a worker, such as zone=eu; may be repeated
    #[arg(long = "label", env = "SORTINGHAT_LABELS", value_name = "NAME=VALUE", value_delimiter = ',', value_parser = label)]
    pub labels: Vec<(Label, Label)>,
    /// A file that holds the token to show to the coordinator; a new one is used within seconds
    #[arg(long, env = "SORTINGHAT_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificates (PEM) to trust for https, instead of the system's
    #[arg(long, env = "SORTINGHAT_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// Certificate to show to the coordinator (PEM), instead of a token; requires --client-key
    #[arg(long, env = "SORTINGHAT_CLIENT_CERT", requires = "client_key")]
    pub client_cert: Option<PathBuf>,
    /// Private key of this certificate (PEM)
    #[arg(long, env = "SORTINGHAT_CLIENT_KEY", requires = "client_cert")]
    pub client_key: Option<PathBuf>,
    /// Address to serve /metrics (Prometheus) and the probes /livez, /readyz and /startupz on, over plain HTTP and without a token
    /// [default: none]
    #[arg(long, env = "SORTINGHAT_WORKER_METRICS_LISTEN", value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,
    /// For tests: how long any task may show no progress [default: minutes, by its kind]
    #[arg(long, env = "SORTINGHAT_TEST_STALL_BOUND", hide = true)]
    pub stall_bound: Option<humantime::Duration>,
    /// For tests: the program to run as executor [default: this one]
    #[arg(long, env = "SORTINGHAT_TEST_EXECUTOR", hide = true)]
    pub executor_program: Option<PathBuf>,
    /// Where objects, weights and files are.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// What may be fetched from the web.
    #[command(flatten)]
    pub gathering: GatherArgs,
    /// What each executor needs.
    #[command(flatten)]
    pub executor: ExecutorArgs,
}

/// Whose jobs may gather photos from the web, and how.
#[derive(Debug, Clone, Args)]
pub struct GatherArgs {
    /// Whose jobs may gather photos from the web: nobody, everybody, or tenants such as lab,shop [default: everybody if the coordinator
    /// is on this machine and is shown neither a token nor a certificate, else nobody]
    #[arg(long, env = "SORTINGHAT_GATHER", value_name = "WHO")]
    pub gather: Option<Rights>,
    /// A page or an e-mail address by which the owners of web servers reach you; every request names it [default: the page of this
    /// software]
    #[arg(long, env = "SORTINGHAT_GATHER_CONTACT", value_name = "CONTACT")]
    pub gather_contact: Option<String>,
    /// The folder of provider files, which say how further services are searched [default: providers in the data folder]
    #[arg(long, env = "SORTINGHAT_PROVIDERS_DIR", value_name = "DIR")]
    pub providers_dir: Option<PathBuf>,
    /// For tests: addresses and ports of the loopback interface that may be fetched from
    #[arg(long, env = "SORTINGHAT_TEST_FETCH_LOOPBACK", hide = true)]
    pub fetch_loopback: Option<Allowance>,
}

/// Where a worker has its objects, weights and files. Executors do not know it.
#[derive(Debug, Clone, Args)]
pub struct StorageArgs {
    /// The object store, file:///FOLDER or s3://BUCKET/PREFIX [default: objects in the data folder]
    #[arg(long, env = "SORTINGHAT_OBJECT_STORE", hide_env_values = true)]
    pub object_store: Option<ObjectStoreUrl>,
    /// Where this worker keeps its files, temporary ones too [default: ~/.local/share/sortinghat]
    #[arg(long, env = "SORTINGHAT_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where installed pretrained weights lie [default: ~/.cache/sortinghat/weights]
    #[arg(long, env = "SORTINGHAT_WEIGHTS_DIR")]
    pub weights_dir: Option<PathBuf>,
    /// Where objects are cached; may be shared by the workers of a machine [default: cache in the data folder]
    #[arg(long, env = "SORTINGHAT_CACHE_DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Keys for the objects of one tenant: a profile of ~/.aws/credentials, used instead of the worker's own keys; may be repeated
    #[arg(long = "tenant-profile", env = "SORTINGHAT_TENANT_PROFILES", value_name = "TENANT=PROFILE", value_delimiter = ',', value_parser = tenant_profile)]
    pub tenant_profiles: Vec<(Tenant, String)>,
    /// How large the cache may grow, such as 500MiB or 20GiB
    #[arg(long, env = "SORTINGHAT_CACHE_BYTES", default_value = "20GiB")]
    pub cache_bytes: ByteCount,
    /// How much one task may keep in temporary files, such as 500MiB or 20GiB
    #[arg(long, env = "SORTINGHAT_SCRATCH_BYTES", default_value = "20GiB")]
    pub scratch_bytes: ByteCount,
    /// Show HF_TOKEN to the hub for repositories that jobs name, so that every tenant can use what it can read
    #[arg(long, env = "SORTINGHAT_SHARE_HUB_TOKEN")]
    pub share_hub_token: bool,
}

/// An executor's settings.
#[derive(Debug, Clone, Args)]
pub struct ExecutorArgs {
    /// Whether the processes that decode photos are confined: on, or off if a machine cannot do that and you trust every photo
    #[arg(long, env = "SORTINGHAT_SANDBOX", default_value = "on")]
    pub sandbox: SandboxChoice,
    /// What the tensors of one task may take of this machine's memory, such as 6GiB; a training that needs more goes on in
    /// smaller pieces [default: three quarters of it, divided by the slots]
    #[arg(long, env = "SORTINGHAT_MEMORY_LIMIT")]
    pub memory_limit: Option<ByteCount>,
    /// The time between two checkpoints of a training, such as 30s or 2m; each epoch ends with one as well
    #[arg(long, env = "SORTINGHAT_CHECKPOINT_INTERVAL", default_value = "30s")]
    pub checkpoint_interval: humantime::Duration,
    /// The device.
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// Whether an executor confines itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SandboxChoice {
    /// It does, or it does not start.
    On,
    /// It does not.
    Off,
}

impl SandboxChoice {
    fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

/// The device and the threads that compute.
#[derive(Debug, Clone, Args)]
pub struct ComputeArgs {
    /// The device that computes: auto, cpu or cuda:N
    #[arg(long, env = "SORTINGHAT_DEVICE", default_value = "auto")]
    pub device: DeviceRequest,
    /// CPU threads of one task [default: the machine's cores, divided by the slots]
    #[arg(long, env = "SORTINGHAT_THREADS")]
    pub threads: Option<NonZeroUsize>,
}

fn tenant_profile(text: &str) -> Result<(Tenant, String), String> {
    match text.split_once('=') {
        Some((tenant, profile)) if !profile.is_empty() => {
            Ok((tenant.parse().map_err(|refusal: Refusal| refusal.message)?, profile.to_owned()))
        }
        _ => Err("write TENANT=PROFILE".to_owned()),
    }
}

fn address(text: &str) -> Result<Url, String> {
    refuse_secrets(text)?.parse().map_err(|error: url::ParseError| error.to_string())
}

fn label(text: &str) -> Result<(Label, Label), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=VALUE"))?;
    let parse = |text: &str| text.parse().map_err(|refusal: Refusal| refusal.message);
    Ok((parse(name)?, parse(value)?))
}

impl RunArgs {
    /// The labels by name.
    ///
    /// # Errors
    /// A message for people, if a name has two values or if there are too many labels.
    pub fn labels(&self) -> Result<BTreeMap<String, String>, String> {
        let labels: BTreeMap<String, String> =
            self.labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        if labels.len() < self.labels.len() {
            return Err("--label gives a name two values: each name has one".to_owned());
        }
        if labels.len() > MAX_WORKER_LABELS {
            return Err(format!(
                "--label: a worker has at most {MAX_WORKER_LABELS} labels, {} were given",
                labels.len()
            ));
        }
        Ok(labels)
    }

    /// Makes relative paths absolute, so that nothing is looked for in the working folder later.
    pub fn make_paths_absolute(&mut self) {
        let Self { token_file, ca_file, client_cert, client_key, gathering, .. } = self;
        [token_file, ca_file, client_cert, client_key, &mut gathering.providers_dir]
            .into_iter()
            .flatten()
            .for_each(|path| *path = absolute(path.clone()));
        self.storage.make_paths_absolute();
    }
}

impl StorageArgs {
    /// The object store's URL.
    ///
    /// # Panics
    /// Never: the default's path is absolute.
    pub fn object_store(&self) -> ObjectStoreUrl {
        self.object_store.clone().unwrap_or_else(|| {
            let folder = std::path::absolute(self.data_dir().join("objects")).unwrap_or_else(|_| "/".into());
            ObjectStoreUrl::of_folder(&folder).expect("an absolute path is a file URL")
        })
    }

    /// Where this worker keeps its files.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| user_folder("XDG_DATA_HOME", ".local/share").join("sortinghat"))
    }

    /// Where temporary files lie. They may be as large as a dataset, and the system's folder for them may be small or go away.
    pub fn temporary_dir(&self) -> PathBuf {
        self.data_dir().join("tmp")
    }

    /// Where pretrained weights lie.
    pub fn weights_dir(&self) -> PathBuf {
        self.weights_dir
            .clone()
            .unwrap_or_else(|| user_folder("XDG_CACHE_HOME", ".cache").join("sortinghat").join("weights"))
    }

    /// Where objects are cached.
    pub fn cache_dir(&self) -> PathBuf {
        self.cache_dir.clone().unwrap_or_else(|| self.data_dir().join("cache"))
    }

    /// Makes relative paths absolute, so that nothing is looked for in the working folder later.
    fn make_paths_absolute(&mut self) {
        self.data_dir = Some(absolute(self.data_dir()));
        [&mut self.weights_dir, &mut self.cache_dir]
            .into_iter()
            .flatten()
            .for_each(|path| *path = absolute(path.clone()));
    }
}

impl ExecutorArgs {
    /// The arguments that start an executor with these settings, one of `slots`.
    pub(crate) fn to_command_line(&self, slots: NonZeroUsize) -> Vec<OsString> {
        let threads = self.compute.threads.map_or_else(|| fair_share(slots), NonZeroUsize::get);
        let memory_limit = self.memory_limit.map_or_else(|| fair_memory(slots), |limit| limit.0);
        vec![
            "executor".into(),
            "--sandbox".into(),
            self.sandbox.as_str().into(),
            "--memory-limit".into(),
            memory_limit.to_string().into(),
            "--checkpoint-interval".into(),
            self.checkpoint_interval.to_string().into(),
            "--device".into(),
            self.compute.device.to_string().into(),
            "--threads".into(),
            threads.to_string().into(),
        ]
    }
}

/// The path from the root. A relative path stays as it is if there is no working folder any more.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// The cores of each of `slots` tasks.
fn fair_share(slots: NonZeroUsize) -> usize {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    (cores / slots).max(1)
}

/// The memory of each of `slots` tasks, in bytes. A quarter of all memory is left for what the limit does not count: libraries,
/// cached files and other processes.
fn fair_memory(slots: NonZeroUsize) -> u64 {
    memory::limit_bytes().map_or(u64::MAX, |bytes| bytes / 4 * 3 / slots.get() as u64)
}

/// A folder of the user: the one that the environment variable names, or else the usual one in the home folder.
fn user_folder(variable: &str, usual: &str) -> PathBuf {
    env::var_os(variable)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .unwrap_or_else(|| env::home_dir().unwrap_or_else(|| "/var/lib".into()).join(usual))
}

#[cfg(test)]
mod tests {
    use sortinghat_proto::secrets::hide_in;

    use super::*;
    use std::time::Duration;

    fn run(arguments: &[&str]) -> RunArgs {
        let line = ["sortinghat-worker", "run"].iter().chain(arguments);
        match CommandLine::try_parse_from(line).unwrap().command {
            Command::Run(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_executor_is_started_with_exactly_the_workers_settings() {
        let worker = run(&[
            "--data-dir",
            "/data",
            "--device",
            "cpu",
            "--threads",
            "3",
            "--sandbox",
            "off",
            "--memory-limit",
            "2GiB",
            "--checkpoint-interval",
            "1m 30s",
        ]);
        let mut line = worker.executor.to_command_line(worker.slots);
        line.insert(0, "sortinghat-worker".into());
        let Command::Executor(executor) = CommandLine::try_parse_from(line).unwrap().command else {
            panic!("not an executor's command line");
        };
        assert_eq!(executor.sandbox, SandboxChoice::Off);
        assert_eq!(executor.memory_limit, Some(ByteCount(2 << 30)));
        assert_eq!(Duration::from(executor.checkpoint_interval), Duration::from_secs(90));
        assert_eq!(executor.compute.threads.map(NonZeroUsize::get), Some(3));
    }

    #[test]
    fn no_path_is_looked_for_in_the_working_folder_later() {
        let mut worker = run(&["--data-dir", "data", "--token-file", "token", "--cache-dir", "cache"]);
        worker.make_paths_absolute();
        let storage = &worker.storage;
        for path in [storage.data_dir(), storage.cache_dir(), storage.temporary_dir(), worker.token_file.unwrap()] {
            assert!(path.is_absolute(), "{}", path.display());
        }
    }

    #[test]
    fn an_address_with_a_password_is_refused_without_showing_it() {
        for flags in [["--coordinator", "https://anna:hunter2@host"], ["--object-store", "s3://key:hunter2@bucket"]] {
            let line = ["sortinghat-worker", "run"].iter().chain(&flags);
            let refused = hide_in(CommandLine::try_parse_from(line).unwrap_err()).to_string();
            assert!(
                refused.contains(flags[0]) && refused.contains("***@") && !refused.contains("hunter2"),
                "{refused}"
            );
        }
    }

    #[test]
    fn labels_have_one_value_each() {
        let worker = run(&["--label", "zone=eu", "--label", "rack=7"]);
        let labels = worker.labels().expect("two names");
        assert_eq!(labels, BTreeMap::from([("rack".into(), "7".into()), ("zone".into(), "eu".into())]));
        assert!(run(&["--label", "zone=eu", "--label", "zone=us"]).labels().unwrap_err().contains("two values"));
        let nameless = ["sortinghat-worker", "run", "--label", "=eu"];
        assert!(CommandLine::try_parse_from(nameless).unwrap_err().to_string().contains("not a label"));
    }
}
