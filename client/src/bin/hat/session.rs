//! What every command needs: where the server is, and how to talk to the person.

use std::{
    fs,
    io::{IsTerminal as _, stderr},
    path::PathBuf,
    pin::pin,
    time::Duration,
};

use owo_colors::OwoColorize as _;
use serde_json::Value;
use sortinghat_client::{Client, Endpoint, RESTART_PATIENCE};

use crate::{
    args::Global,
    failure::Failure,
    local::{data_dir::DataDir, record::Record},
    show::{
        line::{print_json, print_lines, say},
        plain,
    },
};

const DEFAULT_SERVER: &str = "http://127.0.0.1:7878";
/// After this time, a person wants to know what `hat` waits for.
const SILENCE: Duration = Duration::from_secs(1);

/// Where a server is, and how long to wait for it.
pub(crate) struct Server {
    pub(crate) url: String,
    /// How long to keep trying while the server refuses connections.
    pub(crate) patience: Duration,
}

/// The settings of this run.
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

    /// Whether to use colours.
    pub(crate) fn colours(&self) -> bool {
        let unwanted = self.global.no_color || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        !unwanted && stderr().is_terminal()
    }

    /// The folder in which `hat up` keeps everything.
    pub(crate) fn data_dir(&self) -> Result<DataDir, Failure> {
        DataDir::find(self.global.data_dir.clone())
    }

    /// The server that the options name, else the one that `hat up` recorded, else the usual address. At the usual address there may never
    /// have been a server, so it is tried only once.
    pub(crate) fn server(&self) -> Server {
        let recorded = || {
            let record = Record::read(&self.data_dir().ok()?)?;
            record.is_alive().then_some(record.url)
        };
        match self.global.server.clone().or_else(recorded) {
            Some(url) => Server { url, patience: RESTART_PATIENCE },
            None => Server { url: DEFAULT_SERVER.to_owned(), patience: Duration::ZERO },
        }
    }

    /// Connects to the server.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        let Server { url, patience } = self.server();
        let mut connecting = pin!(Client::connect_within(self.endpoint(url.clone())?, patience));
        tokio::select! {
            connected = &mut connecting => return Ok(connected?),
            () = tokio::time::sleep(SILENCE) => self.hint(&format!("waiting for the server at {url} ...")),
        }
        Ok(connecting.await?)
    }

    /// The server at `url`, with the token and the certificates that the options name.
    pub(crate) fn endpoint(&self, url: String) -> Result<Endpoint, Failure> {
        let token = match (&self.global.token_file, &self.global.token) {
            (Some(path), _) => Some(fs::read_to_string(path).map_err(Failure::file("read", path))?.trim().to_owned()),
            (None, token) => token.clone(),
        };
        let read = |path: &PathBuf| fs::read(path).map_err(Failure::file("read", path));
        Ok(Endpoint { url, token, ca: self.global.ca_file.as_ref().map(read).transpose()? })
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
            say(plain::text(text));
        }
    }

    /// Says on standard error that something is probably not as the person wants it.
    pub(crate) fn warn(&self, text: &str) {
        if self.json() {
            return;
        }
        match self.colours() {
            true => say(format_args!("{} {}", "warning:".yellow().bold(), plain::text(text))),
            false => say(format_args!("warning: {}", plain::text(text))),
        }
    }

    /// Says on standard error what failed.
    pub(crate) fn report(&self, failure: &Failure) {
        if self.json() {
            say(failure.to_json());
            return;
        }
        let message = failure.to_string();
        match self.colours() {
            true => say(format_args!("{} {}", "error:".red().bold(), plain::text(&message))),
            false => say(format_args!("error: {}", plain::text(&message))),
        }
        if let Some(hint) = failure.hint() {
            say(format_args!("  {hint}"));
        }
    }
}
