//! What every command needs: where the server is, and how to talk to the person.

use std::{
    env,
    ffi::OsStr,
    io::{IsTerminal as _, stderr},
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

use owo_colors::OwoColorize as _;
use serde_json::{Value, json};
use sortinghat_client::{CertificateFiles, Client, Endpoint, Source, predictions::Cells};
use sortinghat_proto::v1::{ExplainJobResponse, explain_job_response::Reason};

use crate::{
    args::Global,
    failure::Failure,
    local::{cache, data_dir::DataDir, server::Server},
    output::Aim,
    shell,
    show::{
        line::{print_json, print_lines, say, say_prose},
        paper::Paper,
        plain,
    },
};

/// The variable that holds the token where there is no file of it. There is no option for it, since everybody on the machine can read the
/// arguments of a process.
const TOKEN_VARIABLE: &str = "SORTINGHAT_TOKEN";
/// After this time, a person wants to know what `hat` waits for.
const SILENCE: Duration = Duration::from_secs(1);

/// The settings of this run.
#[derive(Clone)]
pub(crate) struct Session {
    global: Global,
}

impl Session {
    pub(crate) fn new(global: Global) -> Self {
        Self { global }
    }

    /// Whether to print for programs.
    pub(crate) fn json(&self) -> bool {
        self.global.json
    }

    /// Whether to submit jobs without following them.
    pub(crate) fn detach(&self) -> bool {
        self.global.detach
    }

    /// Whether to show progress on standard error.
    pub(crate) fn shows_progress(&self) -> bool {
        !self.global.quiet && stderr().is_terminal()
    }

    /// Whether to use colours on standard error.
    pub(crate) fn colours(&self) -> bool {
        self.wants_colours() && stderr().is_terminal()
    }

    /// What standard output is: a terminal of some width, or something else.
    pub(crate) fn paper(&self) -> Paper {
        Paper::stdout(self.wants_colours())
    }

    fn wants_colours(&self) -> bool {
        !self.global.no_color && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    }

    /// Whether rows hold names, paths and messages byte for byte.
    pub(crate) fn raw(&self) -> bool {
        self.global.raw
    }

    /// How names, paths and messages are written to CSV.
    pub(crate) fn cells(&self) -> Cells {
        if self.raw() { Cells::Raw } else { Cells::Harmless }
    }

    /// The folder in which `hat up` keeps everything.
    pub(crate) fn data_dir(&self) -> Result<DataDir, Failure> {
        DataDir::find(self.global.data_dir.clone())
    }

    /// The folder for a command that is about this machine and would ignore an address.
    ///
    /// # Errors
    /// [`Failure::Usage`] if `--server` was typed.
    pub(crate) fn own_data_dir(&self) -> Result<DataDir, Failure> {
        match &self.global.server {
            Some(url) if self.global.typed.server => Err(Failure::usage(format!(
                "this command starts or stops a server of this machine, and not the one at {url}: leave out --server, and name \
                 the folder of another `hat up` with --data-dir"
            ))),
            _ => self.data_dir(),
        }
    }

    /// The server to act on. It is the one that was named, by its address or by the folder of its `hat up`. What was typed goes before
    /// variables, and among variables the address goes before the folder.
    ///
    /// # Errors
    /// [`Failure::NothingRuns`], or [`Failure::Usage`] if two servers were named.
    pub(crate) fn server(&self) -> Result<Server, Failure> {
        let Global { server, data_dir, typed, .. } = &self.global;
        match (server, data_dir) {
            (Some(_), Some(_)) if typed.server && typed.data_dir => {
                Err(Failure::usage("--server and --data-dir name two servers: leave out one of them"))
            }
            (Some(url), _) if typed.server || !typed.data_dir => Ok(Server::at(url)),
            (_, Some(_)) => Server::of(&self.data_dir()?),
            (_, None) => Server::usual(self.data_dir().ok().as_ref()),
        }
    }

    /// The command line that does `what` on the server that was typed for this command, and as the same caller: "hat jobs --data-dir B".
    pub(crate) fn command(&self, what: &str) -> String {
        let Global { server, data_dir, token_file, ca_file, client_cert, client_key, typed, .. } = &self.global;
        let option = |is_typed: bool, name: &str, value: Option<&OsStr>| {
            value.filter(|_| is_typed).map(|value| format!(" --{name} {}", shell::word(value))).unwrap_or_default()
        };
        [
            format!("hat {what}"),
            option(typed.server, "server", server.as_ref().map(OsStr::new)),
            option(typed.data_dir && !typed.server, "data-dir", data_dir.as_ref().map(AsRef::as_ref)),
            option(typed.token_file, "token-file", token_file.as_ref().map(AsRef::as_ref)),
            option(typed.ca_file, "ca-file", ca_file.as_ref().map(AsRef::as_ref)),
            option(typed.client_cert, "client-cert", client_cert.as_ref().map(AsRef::as_ref)),
            option(typed.client_key, "client-key", client_key.as_ref().map(AsRef::as_ref)),
        ]
        .concat()
    }

    /// The command line that goes on with a job.
    pub(crate) fn way_back(&self, job: &str, aim: Aim<'_>) -> String {
        let raw = if self.raw() { " --raw" } else { "" };
        self.command(&match aim {
            Aim::Tell => format!("jobs watch {job}{raw}"),
            Aim::Save(out) => format!("jobs watch {job} {}{raw}", out.options()),
            Aim::Sort(words) => format!("sort --job {job} {words}"),
        })
    }

    /// The command line that lists every file of a dataset that was not used.
    pub(crate) fn show_rejected_command(&self, dataset: &str) -> String {
        self.command(&format!("datasets show {dataset} --rejected"))
    }

    /// The command line that lists every photo that was gathered for a dataset.
    pub(crate) fn show_sources_command(&self, dataset: &str) -> String {
        self.command(&format!("datasets show {dataset} --sources"))
    }

    /// How to start a worker for the server.
    pub(crate) fn start_worker(&self) -> String {
        match self.global.typed.server {
            // `hat up` would start another server.
            true => "`sortinghat-worker run` starts one".to_owned(),
            false => format!("`{}` starts one here, and `sortinghat-worker run` anywhere", self.command("up")),
        }
    }

    /// Why a job is where it is, and the command that lets it go on if it waits for a person. The server's sentence names no commands,
    /// since other programs receive it too.
    pub(crate) fn why(&self, explained: &ExplainJobResponse) -> String {
        let next = match &explained.reason {
            Some(Reason::NoWorker(_)) => format!(": {}", self.start_worker()),
            Some(Reason::Paused(_)) => format!("; `{}` does that", self.command("queue resume")),
            Some(Reason::NoAbleWorker(_)) => format!("; `{}` lists them", self.command("workers")),
            Some(
                Reason::Ended(_)
                | Reason::Runs(_)
                | Reason::Parents(_)
                | Reason::Backoff(_)
                | Reason::NoCapableWorker(_)
                | Reason::Turn(_)
                | Reason::NotBefore(_),
            )
            | None => String::new(),
        };
        format!("{}{next}", explained.sentence)
    }

    /// Connects to the server.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        self.connect_to(&self.server()?).await
    }

    /// Connects to the server for a command that removes, cancels or stops something there, and first says which server that is.
    pub(crate) async fn connect_to_change(&self) -> Result<(Client, Server), Failure> {
        let server = self.server()?;
        if !self.json() {
            self.hint(&format!("acting on {server}"));
        }
        Ok((self.connect_to(&server).await?, server))
    }

    async fn connect_to(&self, server: &Server) -> Result<Client, Failure> {
        let client = self.reach(server).await?;
        Ok(match cache::folder() {
            Some(folder) => client.with_hash_cache(folder.join("hashes")),
            None => client,
        })
    }

    async fn reach(&self, server: &Server) -> Result<Client, Failure> {
        let url = &server.url;
        let mut connecting = pin!(Client::connect_within(self.endpoint(url.clone()), server.patience));
        tokio::select! {
            connected = &mut connecting => return Ok(connected?),
            () = tokio::time::sleep(SILENCE) => self.hint(&format!("waiting for the server at {url} ...")),
        }
        Ok(connecting.await?)
    }

    /// The server at `url`, with the token and the certificates that the options name.
    pub(crate) fn endpoint(&self, url: String) -> Endpoint {
        let Global { token_file, ca_file, client_cert, client_key, .. } = &self.global;
        let token = match token_file {
            Some(path) => Some(Source::File(path.clone())),
            None => env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty()).map(Source::Text),
        };
        let certificate = client_cert.clone().zip(client_key.clone());
        let certificate = certificate.map(|(cert, key)| CertificateFiles { cert, key });
        Endpoint { url, token, ca: ca_file.clone().map(Source::File), certificate }
    }

    /// The files of certificates that the options name: the one to show, and those to trust.
    pub(crate) fn certificate_files(&self) -> impl Iterator<Item = &Path> {
        [&self.global.client_cert, &self.global.ca_file].into_iter().flatten().map(PathBuf::as_path)
    }

    /// Prints an answer in the form that was asked for: one JSON object, or lines for people.
    pub(crate) fn answer(&self, json: impl FnOnce() -> Value, lines: impl FnOnce() -> Vec<String>) {
        match self.json() {
            true => print_json(&json()),
            false => print_lines(&lines()),
        }
    }

    /// Says on standard error what goes on, or what to do next.
    pub(crate) fn hint(&self, text: &str) {
        if !self.global.quiet {
            say_prose(&plain::text(text));
        }
    }

    /// Says on standard error that something is probably not as the person wants it.
    pub(crate) fn warn(&self, text: &str) {
        if self.json() {
            say(plain::json(&json!({ "warning": { "message": text } }).to_string()));
            return;
        }
        match self.colours() {
            true => say_prose(&format!("{} {}", "warning:".yellow().bold(), plain::text(text))),
            false => say_prose(&format!("warning: {}", plain::text(text))),
        }
    }

    /// Says on standard error what failed.
    pub(crate) fn report(&self, failure: &Failure) {
        if self.json() {
            say(plain::json(&failure.to_json().to_string()));
            return;
        }
        let message = failure.to_string();
        match self.colours() {
            true => say_prose(&format!("{} {}", "error:".red().bold(), plain::text(&message))),
            false => say_prose(&format!("error: {}", plain::text(&message))),
        }
        if let Some(hint) = failure.hint(&|what| self.command(what)) {
            say_prose(&format!("  {hint}"));
        }
    }
}
