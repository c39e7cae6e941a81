//! Files a second of an upload, for the first time and again, on this machine and over a line with a round trip, beside rclone:
//! `make bench-upload`.
//!
//! The contenders take turns, each with a fresh store, and the medians are compared. Ours is `hat ingest --detach` to a coordinator with a
//! folder as its object store: every file is durable, checked against its digest, and listed in a job that was accepted. rclone's is
//! `rclone copy` to `rclone serve sftp`, which keeps files in a folder, and leaves it to the system when they reach the disk.

mod contenders;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Parser;
use sortinghat_tests::{Dice, Proxy, Weather};

use contenders::{Contender, Ours, Rclone};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The bytes of a small and of a large file.
const SMALL_BYTES: usize = 5_000;
const LARGE_BYTES: usize = 5_000_000;

/// Files a second of an upload, beside rclone.
#[derive(Debug, Parser)]
struct Settings {
    /// Number of turns of each contender
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Number of files of 5 KB
    #[arg(long, default_value_t = 20_000)]
    small: usize,
    /// Number of files of 5 MB
    #[arg(long, default_value_t = 100)]
    large: usize,
    /// Round trip of the long line, in milliseconds
    #[arg(long, default_value_t = 50)]
    round_trip_ms: u64,
    /// The program rclone. It is left out if there is none
    #[arg(long, default_value = "rclone")]
    rclone: PathBuf,
    /// Transfers of rclone at a time. rclone's own default is 4
    #[arg(long, default_value_t = 8)]
    transfers: usize,
    /// Folder for sources and stores
    #[arg(long, default_value = "target/bench-upload")]
    folder: PathBuf,
}

/// Seconds of a first and of a second upload.
type Turn = [f64; 2];

fn main() -> Result<(), Failure> {
    let settings = Settings::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = std::path::absolute(&settings.folder)?;
    let mut contenders: Vec<Box<dyn Contender>> = vec![Box::new(Ours)];
    match Rclone::find(&settings.rclone, settings.transfers) {
        Some(rclone) => contenders.push(Box::new(rclone)),
        None => {
            println!("there is no {}: it is left out; deploy/install.sh rclone fetches it", settings.rclone.display())
        }
    }
    println!("files a second, medians of {} turns", settings.rounds);
    println!("{:<34} {:>10} {:>10}", "", "first time", "again");
    for (name, files, bytes) in [("5 KB", settings.small, SMALL_BYTES), ("5 MB", settings.large, LARGE_BYTES)] {
        if files == 0 {
            continue;
        }
        let source = folder.join("source");
        write_source(&source, files, bytes)?;
        for (line, weather) in [
            ("on this machine", Weather::Clear),
            ("over the long line", Weather::Far(Duration::from_millis(settings.round_trip_ms) / 2)),
        ] {
            let mut turns: Vec<Vec<Turn>> = contenders.iter().map(|_| Vec::new()).collect();
            for _ in 0..settings.rounds {
                for (contender, turns) in contenders.iter().zip(&mut turns) {
                    turns.push(turn(&runtime, contender.as_ref(), &folder, weather)?);
                }
            }
            println!("{files} files of {bytes} bytes ({name}), {line}");
            for (contender, turns) in contenders.iter().zip(&turns) {
                let rate = |which: usize| files as f64 / median(turns.iter().map(|turn| turn[which]).collect());
                println!("  {:<32} {:>10.0} {:>10.0}", contender.name(), rate(0), rate(1));
            }
        }
        fs::remove_dir_all(&source)?;
    }
    Ok(())
}

/// Uploads the source twice to a fresh store.
fn turn(
    runtime: &tokio::runtime::Runtime,
    contender: &dyn Contender,
    folder: &Path,
    weather: Weather,
) -> Result<Turn, Failure> {
    let store = folder.join("store");
    let _ = fs::remove_dir_all(&store);
    fs::create_dir_all(&store)?;
    let mut server = contender.serve(&store)?;
    let proxy = runtime.block_on(Proxy::start(vec![server.address]))?;
    proxy.set(weather);
    let mut seconds = [0.0; 2];
    for seconds in &mut seconds {
        *seconds = contender.upload(&folder.join("source"), &store, proxy.address())?;
    }
    server.process.kill();
    fs::remove_dir_all(&store)?;
    Ok(seconds)
}

/// Writes files of random bytes into two folders, whose files are older than the time within which a change might not show.
fn write_source(source: &Path, files: usize, bytes: usize) -> Result<(), Failure> {
    let _ = fs::remove_dir_all(source);
    let mut dice = Dice::new(1);
    for number in 0..files {
        let class = source.join(if number % 2 == 0 { "red" } else { "green" });
        fs::create_dir_all(&class)?;
        let content: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(|_| dice.roll().to_le_bytes()).take(bytes).collect();
        fs::write(class.join(format!("{number:07}.jpg")), content)?;
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
