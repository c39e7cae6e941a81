//! What every command needs: where the server is and how to talk to the person.

use std::{
    fmt::Display,
    fs,
    io::{ErrorKind, IsTerminal as _, Write as _, stderr, stdout},
    path::PathBuf,
    pin::pin,
    time::Duration,
};

use owo_colors::OwoColorize as _;
use serde_json::Value;
use sortinghat_client::{Client, Endpoint, RESTART_PATIENCE};

use crate::{
    args::Global,
    exit::Exit,
    failure::Failure,
    local::{data_dir::DataDir, record::Record},
    show::plain,
};

const DEFAULT_SERVER: &str = "http://127.0.0.1:7878";
/// Whoever waits for longer than this wants to know what for.
const SILENCE: Duration = Duration::from_secs(1);

/// A server's address.
pub(crate) struct Server {
    pub(crate) url: String,
    /// How long it is tried while it refuses connections.
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

    /// Whether to leave a job to itself.
    pub(crate) fn detach(&self) -> bool {
        self.global.detach
    }

    /// Whether to show progress on standard error.
    pub(crate) fn shows_progress(&self) -> bool {
        !self.global.quiet && stderr().is_terminal()
    }

    /// Whether standard error takes colours.
    pub(crate) fn colours(&self) -> bool {
        let unwanted = self.global.no_color || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        !unwanted && stderr().is_terminal()
    }

    /// Where `hat up` keeps everything.
    pub(crate) fn data_dir(&self) -> Result<DataDir, Failure> {
        DataDir::find(self.global.data_dir.clone())
    }

    /// The server: as given, else as `hat up` recorded it, else at the usual address, where perhaps nobody ever was.
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

    /// How to be let in at `url`.
    pub(crate) fn endpoint(&self, url: String) -> Result<Endpoint, Failure> {
        let token = match (&self.global.token_file, &self.global.token) {
            (Some(path), _) => Some(fs::read_to_string(path).map_err(Failure::file("read", path))?.trim().to_owned()),
            (None, token) => token.clone(),
        };
        let read = |path: &PathBuf| fs::read(path).map_err(Failure::file("read", path));
        Ok(Endpoint { url, token, ca: self.global.ca_file.as_ref().map(read).transpose()? })
    }

    /// Prints one object a line, for programs.
    pub(crate) fn print_json(&self, value: &Value) {
        print_line(&value.to_string());
    }

    /// A line on standard error that is no error: what goes on, what to do next.
    pub(crate) fn hint(&self, text: &str) {
        if !self.global.quiet {
            say(plain::text(text));
        }
    }

    /// Something that is probably not what was wanted.
    pub(crate) fn warn(&self, text: &str) {
        if self.json() {
            return;
        }
        match self.colours() {
            true => say(format_args!("{} {}", "warning:".yellow().bold(), plain::text(text))),
            false => say(format_args!("warning: {}", plain::text(text))),
        }
    }

    /// Says what did not work.
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

/// A line on standard error. That nobody reads it any more is no reason to stop.
fn say(line: impl Display) {
    let _ = writeln!(stderr(), "{line}");
}

/// Prints a line of data.
pub(crate) fn print_line(line: &str) {
    print_styled(&plain::text(line));
}

/// Prints a line of our own making, which may have colours. Ends the process where it cannot be written: quietly when nobody reads any
/// more, as in `hat jobs | head`.
pub(crate) fn print_styled(line: &str) {
    match writeln!(stdout(), "{line}") {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(Exit::Ok as i32),
        Err(error) => {
            say(format_args!("error: failed to write to standard output: {error}"));
            std::process::exit(Exit::Local as i32);
        }
    }
}
