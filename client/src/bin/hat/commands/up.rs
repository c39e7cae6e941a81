use std::{
    fs::File,
    process::{Command, Stdio},
    time::Duration,
};

use tokio::signal::unix::{SignalKind, signal};

use crate::{
    args::Up,
    exit::Exit,
    failure::Failure,
    local::{
        cache,
        data_dir::DataDir,
        record::Record,
        supervisor::{Settings, Supervisor},
    },
    session::Session,
    shell,
    show::line::print_line,
};

/// The device for whoever does not choose one.
const AUTO: &str = "auto";
const POLL: Duration = Duration::from_millis(50);

pub(super) async fn run(session: &Session, mut args: Up) -> Result<Exit, Failure> {
    let data_dir = session.own_data_dir()?;
    // The processes do not work in the folder in which this command was started.
    args.weights_dir = args.weights_dir.map(|path| std::path::absolute(&path).unwrap_or(path));
    data_dir.create()?;
    match args.background {
        true => start_in_background(session, &data_dir, &args).await,
        false => serve(session, data_dir, args).await,
    }
}

/// Serves until Ctrl-C, SIGTERM or the end of the terminal, then drains.
async fn serve(session: &Session, data_dir: DataDir, args: Up) -> Result<Exit, Failure> {
    let Some(_lock) = data_dir.try_lock()? else { return already_runs(session, &data_dir, &args) };
    if args.daemon {
        // Leaves the terminal, because its end would end this process.
        nix::unistd::setsid().map_err(|error| Failure::local(format!("failed to leave the terminal: {error}")))?;
    }
    let failed = |error| Failure::local(format!("failed to listen for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let settings = Settings { listen: args.listen, device: args.device, weights_dir: args.weights_dir };
    session.hint("starting a server and a worker ...");
    let mut supervisor = tokio::select! {
        started = Supervisor::start(data_dir.clone(), settings) => started?,
        _ = terminate.recv() => return Ok(Exit::Ok),
        _ = interrupt.recv() => return Ok(Exit::Ok),
        _ = hangup.recv() => return Ok(Exit::Ok),
    };
    if !args.daemon {
        supervisor.record().print(&data_dir, session.json());
        let next = session.command("ingest NAME FOLDER");
        session.hint(&format!("the server is ready; Ctrl-C stops it. Next, in another terminal: {next}"));
    }
    let failure = tokio::select! {
        failure = supervisor.keep_running(|what| session.warn(what)) => Some(failure),
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        _ = hangup.recv() => None,
    };
    session.hint("stopping: the worker gives back its tasks, and then the server ends ...");
    tokio::select! {
        drained = supervisor.drain() => drained?,
        // A person who presses Ctrl-C twice does not want to wait: the children are killed together with this process.
        _ = interrupt.recv() => return Ok(Exit::Detached),
    }
    session.hint("stopped");
    failure.map_or(Ok(Exit::Ok), Err)
}

/// Starts `hat up` again as a process of its own, and waits until its server is ready.
async fn start_in_background(session: &Session, data_dir: &DataDir, args: &Up) -> Result<Exit, Failure> {
    if data_dir.try_lock()?.is_none() {
        return already_runs(session, data_dir, args);
    }
    // A `hat up` that was killed leaves its record behind. The new process needs that record to stop the former children, so it stays
    // until the new process replaces it. Until then it must not be taken for the new one's.
    let former = Record::read(data_dir);
    let log_path = data_dir.logs().join("hat.log");
    let log = || File::options().create(true).append(true).open(&log_path).map_err(Failure::file("open", &log_path));
    let offset = log()?.metadata().map_err(Failure::file("read", &log_path))?.len();
    let own = std::env::current_exe().map_err(Failure::file("find", "hat"))?;
    let mut command = Command::new(own);
    command.arg("up").arg("--daemon").arg("--data-dir").arg(data_dir.path()).arg("--device").arg(&args.device);
    if let Some(listen) = args.listen {
        command.arg("--listen").arg(listen.to_string());
    }
    if let Some(folder) = &args.weights_dir {
        command.arg("--weights-dir").arg(folder);
    }
    // The folder in which this command was started may go away.
    command.current_dir(data_dir.path());
    let mut child =
        command.stdin(Stdio::null()).stdout(log()?).stderr(log()?).spawn().map_err(Failure::file("start", "hat"))?;
    session.hint("starting a server and a worker ...");
    loop {
        if let Some(record) = Record::read(data_dir).filter(|record| Some(record) != former.as_ref()) {
            record.print(data_dir, session.json());
            let (stop, next) = (session.command("down"), session.command("ingest NAME FOLDER"));
            session.hint(&format!("the server runs in the background; `{stop}` stops it. Next: `{next}`"));
            return Ok(Exit::Ok);
        }
        if child.try_wait().map_err(Failure::file("wait for", "hat"))?.is_some() {
            return Err(Failure::local(what_it_said(&log_path, offset)));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What the background process logged before it ended.
fn what_it_said(log: &std::path::Path, offset: u64) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let said = String::from_utf8_lossy(bytes.get(usize::try_from(offset).unwrap_or_default()..).unwrap_or_default());
    let error = said.split_once("error: ").map_or(said.as_ref(), |(_, error)| error);
    error.trim().to_owned()
}

fn already_runs(session: &Session, data_dir: &DataDir, args: &Up) -> Result<Exit, Failure> {
    let Some(record) = Record::read(data_dir).filter(Record::is_alive) else {
        return Err(Failure::local(format!(
            "another `hat up` is starting or stopping in {}: try again in a moment",
            data_dir.path().display()
        )));
    };
    if let Some(unmet) = unmet(args, &record) {
        let (folder, url) = (data_dir.path(), &record.url);
        return Err(Failure::local(format!(
            "`hat up` already runs in {} and serves at {url}, {unmet}: stop it first with `hat down --data-dir {}`",
            folder.display(),
            shell::word(folder)
        )));
    }
    let stop = session.command("down");
    session.hint(&format!("`hat up` already runs here, as process {}; `{stop}` stops it", record.hat.pid));
    record.print(data_dir, session.json());
    if !session.json() {
        print_line(&format!("process  {}", record.hat.pid));
    }
    Ok(Exit::Ok)
}

/// What these options ask for and the `hat up` that runs already does not do.
fn unmet(args: &Up, record: &Record) -> Option<String> {
    if let Some(address) = args.listen.filter(|address| !record.listens_on(*address)) {
        return Some(format!("not at {address}"));
    }
    // A device that is not named is as good as any.
    let device = record.device.as_ref().filter(|device| args.device != AUTO && args.device != **device);
    if let Some(device) = device {
        return Some(format!("with --device {device} and not with {}", args.device));
    }
    // The record of an older version says neither the device nor the folder.
    let asked = args.weights_dir.as_ref().filter(|_| record.device.is_some())?;
    let has = record.weights_dir.clone().unwrap_or_else(cache::weights);
    (has != *asked).then(|| format!("with --weights-dir {} and not with {}", has.display(), asked.display()))
}
