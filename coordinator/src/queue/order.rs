//! The order in which ready tasks are claimed: by lane, then by the tenants' fair shares, then by the order in the queue.

use std::{
    cmp::Ordering,
    collections::{HashMap, VecDeque},
};

use sortinghat_proto::{Lane, Tenant};

/// While both lanes have ready tasks, one claim in this many goes to the bulk lane.
const BULK_TURN: u32 = 8;
/// The virtual time that one claim of a tenant with the weight 1 takes. It is divisible by many weights.
const STRIDE: u64 = 720_720;

/// The first tasks of one ready queue.
#[derive(Debug, Clone)]
pub struct Heads {
    /// The lane of the queue.
    pub lane: Lane,
    /// The tenant of the queue.
    pub tenant: Tenant,
    /// Index entries, which sort in the order of the queue.
    pub entries: VecDeque<String>,
}

/// What a tenant has of the workers, and its weight.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// How many slots run the tenant's tasks.
    pub running: u64,
    /// The tenant's weight among others, at least 1.
    pub weight: u32,
}

impl Share {
    /// Compares running slots divided by weight.
    fn compare(self, other: Self) -> Ordering {
        let scaled = |share: Self, by: Self| share.running.saturating_mul(u64::from(by.weight));
        scaled(self, other).cmp(&scaled(other, self))
    }
}

impl Default for Share {
    fn default() -> Self {
        Self { running: 0, weight: 1 }
    }
}

/// The tenants that were served lately. Where slots are few, the number of running slots is not enough: a tenant whose only task has just
/// ended would run nothing, and its older tasks would go first again and again.
///
/// This is start-time fair queueing (Goyal, Vin and Cheng, 1996) with claims as packets. Each claim moves the tenant's next turn back by the
/// inverse of its weight. A tenant that had nothing to do enters at the present virtual time, not in the past.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    /// The virtual time: the earliest turn among the tenants that waited at the last claim.
    now: u64,
    /// The virtual time of each tenant's next turn, if it is in the future.
    next: HashMap<Tenant, u64>,
    /// How many interactive claims came since the last bulk claim while bulk tasks waited.
    interactive_in_a_row: u32,
}

/// The task that is claimed next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pick {
    /// The task's lane.
    pub lane: Lane,
    /// The task's tenant.
    pub tenant: Tenant,
    /// The task's index entry.
    pub entry: String,
    weight: u32,
    /// The virtual time of the claim.
    at: u64,
    /// Whether tasks of the other lane waited too.
    contested: bool,
}

impl Turns {
    /// Notes that a picked task was claimed.
    pub fn served(&mut self, pick: &Pick) {
        self.now = self.now.max(pick.at);
        let turn = self.turn(&pick.tenant) + STRIDE / u64::from(pick.weight.max(1));
        self.next.insert(pick.tenant.clone(), turn);
        let now = self.now;
        self.next.retain(|_, turn| *turn > now);
        match pick.lane {
            Lane::Bulk => self.interactive_in_a_row = 0,
            Lane::Interactive => self.interactive_in_a_row += u32::from(pick.contested),
        }
    }

    fn turn(&self, tenant: &Tenant) -> u64 {
        self.next.get(tenant).map_or(self.now, |turn| self.now.max(*turn))
    }
}

/// Iterates over the ready tasks in the order of claims, as if each of them were claimed in its turn.
#[derive(Debug)]
pub struct ClaimOrder {
    queues: Vec<Heads>,
    shares: HashMap<Tenant, Share>,
    turns: Turns,
}

impl ClaimOrder {
    /// The order among the heads of queues. A tenant without a share runs nothing and has the weight 1.
    pub fn new(queues: Vec<Heads>, shares: HashMap<Tenant, Share>, turns: Turns) -> Self {
        Self { queues, shares, turns }
    }

    /// Leaves out the remaining tasks of the picked task's tenant in its lane, so that other tenants get their turns.
    pub fn pass_over(&mut self, pick: &Pick) {
        let is_passed = |queue: &&mut Heads| queue.lane == pick.lane && queue.tenant == pick.tenant;
        self.queues.iter_mut().filter(is_passed).for_each(|queue| queue.entries.clear());
    }

    fn share(&self, tenant: &Tenant) -> Share {
        self.shares.get(tenant).copied().unwrap_or_default()
    }

    /// The lane of the next claim, and whether tasks of the other lane wait too.
    fn lane(&self) -> Option<(Lane, bool)> {
        let waits = |lane| self.queues.iter().any(|queue| queue.lane == lane && !queue.entries.is_empty());
        match (waits(Lane::Interactive), waits(Lane::Bulk)) {
            (true, true) if self.turns.interactive_in_a_row + 1 >= BULK_TURN => Some((Lane::Bulk, true)),
            (true, bulk) => Some((Lane::Interactive, bulk)),
            (false, true) => Some((Lane::Bulk, false)),
            (false, false) => None,
        }
    }
}

impl Iterator for ClaimOrder {
    type Item = Pick;

    fn next(&mut self) -> Option<Pick> {
        let (lane, contested) = self.lane()?;
        let waiting = || {
            let of_lane = self.queues.iter().enumerate().filter(move |(_, queue)| queue.lane == lane);
            of_lane.filter_map(|(number, queue)| Some((number, queue, queue.entries.front()?)))
        };
        let at = waiting().map(|(_, queue, _)| self.turns.turn(&queue.tenant)).min()?;
        let (number, ..) = waiting().min_by(|(_, one, first), (_, other, second)| {
            let by_share = self.share(&one.tenant).compare(self.share(&other.tenant));
            let by_turn = || self.turns.turn(&one.tenant).cmp(&self.turns.turn(&other.tenant));
            by_share.then_with(by_turn).then_with(|| first.cmp(second))
        })?;
        let queue = &mut self.queues[number];
        let entry = queue.entries.pop_front()?;
        let tenant = queue.tenant.clone();
        let share = self.shares.entry(tenant.clone()).or_default();
        share.running += 1;
        let pick = Pick { lane, tenant, entry, weight: share.weight, at, contested };
        self.turns.served(&pick);
        Some(pick)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(lane: Lane, tenant: &str, entries: std::ops::Range<u32>) -> Heads {
        let entries = entries.map(|number| format!("{number:04}:{tenant}")).collect();
        Heads { lane, tenant: tenant.parse().expect("a tenant"), entries }
    }

    fn shares<const N: usize>(shares: [(&str, u64, u32); N]) -> HashMap<Tenant, Share> {
        let share =
            |(tenant, running, weight): (&str, _, _)| (tenant.parse().expect("a tenant"), Share { running, weight });
        shares.into_iter().map(share).collect()
    }

    fn tenants(picks: impl IntoIterator<Item = Pick>) -> String {
        picks.into_iter().map(|pick| pick.tenant.to_string()).collect()
    }

    #[test]
    fn one_tenant_is_served_in_the_order_of_its_queues_whatever_they_require() {
        let queues = vec![heads(Lane::Bulk, "a", 5..7), heads(Lane::Bulk, "a", 1..3)];
        let order = ClaimOrder::new(queues, HashMap::new(), Turns::default());
        let entries: Vec<String> = order.map(|pick| pick.entry).collect();
        assert_eq!(entries, ["0001:a", "0002:a", "0005:a", "0006:a"]);
    }

    #[test]
    fn the_tenant_that_runs_least_for_its_weight_goes_first() {
        let queues = || vec![heads(Lane::Bulk, "a", 0..9), heads(Lane::Bulk, "b", 10..19)];
        let order = ClaimOrder::new(queues(), shares([("a", 3, 1), ("b", 1, 1)]), Turns::default());
        assert_eq!(tenants(order.take(4)), "bbab", "b catches up, then a and b take turns");
        let order = ClaimOrder::new(queues(), shares([("a", 0, 1), ("b", 0, 2)]), Turns::default());
        assert_eq!(
            tenants(order.take(6)).matches('b').count(),
            4,
            "a tenant with twice the weight gets twice the slots"
        );
    }

    #[test]
    fn with_one_slot_tenants_take_turns_by_weight_although_no_task_runs() {
        let mut turns = Turns::default();
        let mut served = String::new();
        for _ in 0..8 {
            let queues = vec![heads(Lane::Bulk, "a", 0..9), heads(Lane::Bulk, "b", 10..19)];
            let picked = ClaimOrder::new(queues, shares([("a", 0, 1), ("b", 0, 3)]), turns.clone()).next();
            let picked = picked.expect("tasks wait");
            turns.served(&picked);
            served += picked.tenant.as_str();
        }
        assert_eq!(served.matches('b').count(), 6, "{served}");
    }

    #[test]
    fn a_tenant_that_was_away_has_saved_no_turns_up() {
        let mut turns = Turns::default();
        let mut serve = |queues: Vec<Heads>| {
            let picked = ClaimOrder::new(queues, HashMap::new(), turns.clone()).next().expect("tasks wait");
            turns.served(&picked);
            picked.tenant.to_string()
        };
        for _ in 0..100 {
            serve(vec![heads(Lane::Bulk, "a", 0..9)]);
        }
        let both = || vec![heads(Lane::Bulk, "a", 0..9), heads(Lane::Bulk, "b", 10..19)];
        let served: String = (0..6).map(|_| serve(both())).collect();
        assert_eq!(served, "bababa");
    }

    #[test]
    fn a_tenant_that_is_passed_over_in_a_lane_leaves_its_turns_there_to_others() {
        let queues = vec![
            heads(Lane::Interactive, "a", 0..9),
            heads(Lane::Interactive, "a", 10..19),
            heads(Lane::Interactive, "b", 20..21),
            heads(Lane::Bulk, "a", 30..31),
        ];
        let mut order = ClaimOrder::new(queues, HashMap::new(), Turns::default());
        let first = order.next().expect("tasks wait");
        order.pass_over(&first);
        let entries: Vec<String> = order.map(|pick| pick.entry).collect();
        assert_eq!((first.entry.as_str(), entries), ("0000:a", vec!["0020:b".to_owned(), "0030:a".to_owned()]));
    }

    #[test]
    fn interactive_goes_first_and_bulk_gets_one_claim_in_eight() {
        let queues = vec![heads(Lane::Bulk, "b", 0..9), heads(Lane::Interactive, "i", 10..99)];
        let order = ClaimOrder::new(queues, HashMap::new(), Turns::default());
        let lanes = tenants(order.take(16));
        assert_eq!(lanes, "iiiiiiibiiiiiiib");
    }
}
