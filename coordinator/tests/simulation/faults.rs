//! The faults of a simulation: which, when, and for how long.

use std::time::Duration;

use rand::{RngExt as _, rngs::StdRng};
use turmoil::Sim;

use crate::{COORDINATORS, TICK, WORKERS, store::SharedStore};

/// Faults begin within this time: after everything has started, and early enough that every job can end.
const FAULTS: std::ops::Range<Duration> = Duration::from_millis(500)..Duration::from_secs(25);
/// One step in this many begins a fault.
const STEPS_PER_FAULT: u32 = 60;

/// A fault, which is undone later.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Crash(&'static str),
    Partition(&'static str, &'static str),
    OneWay(&'static str, &'static str),
    Hold(&'static str, &'static str),
    StoreAway,
}

/// Runs the simulation to its end and returns how many faults it had.
pub(crate) fn run(simulation: &mut Sim<'_>, store: &SharedStore, mut dice: StdRng) -> usize {
    let mut open: Vec<(Duration, Fault)> = Vec::new();
    let mut faults = 0;
    while !simulation.step().unwrap_or_else(|error| panic!("{error}")) {
        let now = simulation.elapsed();
        let (due, later) = open.into_iter().partition(|(until, _)| *until <= now);
        open = later;
        let due: Vec<(Duration, Fault)> = due;
        due.iter().for_each(|(_, fault)| undo(simulation, store, *fault));
        if FAULTS.contains(&now) && dice.random_range(0..STEPS_PER_FAULT) == 0 {
            let fault = choose(&mut dice);
            if begin(simulation, store, fault) {
                faults += 1;
                open.push((now + Duration::from_millis(dice.random_range(200..5_000)), fault));
            }
        }
        if now >= FAULTS.end && now < FAULTS.end + TICK {
            open.drain(..).for_each(|(_, fault)| undo(simulation, store, fault));
            store.heal();
        }
    }
    faults
}

fn one_of(dice: &mut StdRng, hosts: &[&'static str]) -> &'static str {
    hosts[dice.random_range(0..hosts.len())]
}

fn choose(dice: &mut StdRng) -> Fault {
    let coordinator = one_of(dice, &COORDINATORS);
    let other = if dice.random_range(0..4) == 0 { "client" } else { one_of(dice, &WORKERS) };
    match dice.random_range(0..10) {
        0..2 => Fault::Crash(coordinator),
        2..4 => Fault::Crash(one_of(dice, &WORKERS)),
        4..6 => Fault::Partition(coordinator, other),
        6 => Fault::OneWay(coordinator, other),
        7 => Fault::OneWay(other, coordinator),
        8 => Fault::Hold(coordinator, other),
        _ => Fault::StoreAway,
    }
}

/// Begins a fault. Returns `false` if the host is down already.
fn begin(simulation: &mut Sim<'_>, store: &SharedStore, fault: Fault) -> bool {
    match fault {
        Fault::Crash(host) if !simulation.is_host_running(host) => return false,
        Fault::Crash(host) => simulation.crash(host),
        Fault::Partition(a, b) => simulation.partition(a, b),
        Fault::OneWay(from, to) => simulation.partition_oneway(from, to),
        Fault::Hold(a, b) => simulation.hold(a, b),
        Fault::StoreAway => store.set_away(true),
    }
    true
}

fn undo(simulation: &mut Sim<'_>, store: &SharedStore, fault: Fault) {
    match fault {
        Fault::Crash(host) => simulation.bounce(host),
        Fault::Partition(a, b) => simulation.repair(a, b),
        Fault::OneWay(from, to) => simulation.repair_oneway(from, to),
        Fault::Hold(a, b) => simulation.release(a, b),
        Fault::StoreAway => store.set_away(false),
    }
}
