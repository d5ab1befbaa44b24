//! Breadth first, so that the first path to a broken state is a shortest one.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::canonical::fingerprint;
use super::moves::{Fault, Move};
use super::story::{Story, story};
use super::world::{Broken, World};
use crate::mutant::Mutant;
use crate::run::{CRASH, caught};
use crate::time::ms;

/// Where a search begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum From {
    /// A primary that has served for a while, and its standby.
    #[default]
    Settled,
    /// Two empty hosts and an empty store.
    Empty,
}

/// How far a search goes.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it begins.
    pub from: From,
    /// Faults on one path.
    pub faults: u8,
    /// Kinds of faults.
    pub only: Vec<Fault>,
    /// Faults come within so many moves from the beginning.
    pub within: u32,
    /// Moves on one path.
    pub depth: u32,
    /// States in all.
    pub states: usize,
    /// Time in all.
    pub time: Option<Duration>,
    /// Timers ring at multiples of this. Less than the guard is given for stopping PostgreSQL.
    pub grid: Duration,
    /// A planted bug.
    pub mutant: Option<Mutant>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            from: From::Settled,
            faults: 1,
            only: Fault::ALL.to_vec(),
            within: u32::MAX,
            depth: 10_000,
            states: 1_000_000,
            time: None,
            grid: ms(200),
            mutant: None,
        }
    }
}

/// What a search has covered.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Different states.
    pub states: usize,
    /// Moves that were tried.
    pub transitions: u64,
    /// The longest path.
    pub depth: u32,
    /// No path was cut short: everything that the budget of faults allows was seen.
    pub closed: bool,
    /// How long it took.
    pub took: Duration,
    /// States by how many faults led to them.
    pub by_faults: BTreeMap<u8, usize>,
    /// States in which each node serves under its key, and in which nobody does.
    pub served: [usize; 3],
    /// Decisions that were met, by rung and code.
    pub decisions: BTreeMap<(&'static str, &'static str), u64>,
    /// What did not hold, and a shortest path to it.
    pub broken: Option<Story>,
}

/// A state that was seen: how it was reached first, and where the usual course leads from it.
#[derive(Clone, Copy)]
struct Seen {
    from: u32,
    by: Move,
    next: u32,
    served: bool,
}

const NOBODY: u32 = u32::MAX;

/// The state that a search begins with.
pub(super) fn root(options: &Options) -> World {
    let mut world = World::empty(options.grid);
    for node in 0..2 {
        world.start_agent(node);
    }
    if options.from == From::Settled {
        let (mut settled, limit) = (world.now, world.now + ms(120_000));
        while world.now.since(settled) < ms(20_000) && world.now < limit && world.broken.is_none() {
            world = world.after(usual(&world));
            let whole = world.is_served() && (0..2).any(|node| world.streams(node));
            if !whole {
                settled = world.now;
            }
        }
        assert!(world.now < limit, "the world does not settle");
    }
    world.plant(options.mutant);
    (world.faults, world.only) = (options.faults, options.only.clone().into());
    world
}

/// The usual course: everything heals, messages come, time passes.
pub(super) fn usual(world: &World) -> Move {
    let moves = world.moves();
    moves.iter().copied().find(|what| what.heals()).unwrap_or(moves[0])
}

/// Searches. `progress` is told how far it is after every level.
pub fn search(options: &Options, progress: &mut dyn FnMut(&Report)) -> Report {
    let began = Instant::now();
    let mut search = Search { seen: Vec::new(), known: HashMap::new(), report: Report::default() };
    let root = root(options);
    let mut level = vec![(search.first(&root), root.clone())];
    let mut cut_short = false;
    while !level.is_empty() {
        if search.report.depth >= options.depth {
            cut_short = true;
            break;
        }
        let mut next = Vec::new();
        let strikes = search.report.depth < options.within;
        for (id, world) in level {
            let late = options.time.is_some_and(|time| began.elapsed() >= time);
            if search.seen.len() >= options.states || late {
                cut_short = true;
                break;
            }
            if let Some((by, broken)) = search.expand(id, &world, strikes, &mut next) {
                search.report.broken = Some(story(&root, &search.path(id, Some(by)), broken));
                break;
            }
        }
        search.report.took = began.elapsed();
        search.report.states = search.seen.len();
        if search.report.broken.is_some() {
            return search.report;
        }
        progress(&search.report);
        level = if cut_short { Vec::new() } else { next };
        search.report.depth += u32::from(!level.is_empty());
    }
    search.report.closed = !cut_short && options.within == u32::MAX;
    search.report.broken = search.dead_end(&root);
    search.report.took = began.elapsed();
    search.report
}

struct Search {
    seen: Vec<Seen>,
    /// The states by their numbers. How many faults may still come is a part of a state.
    known: HashMap<u128, u32>,
    report: Report,
}

impl Search {
    fn first(&mut self, root: &World) -> u32 {
        self.note(root, NOBODY, Move::Wait)
    }

    fn note(&mut self, world: &World, from: u32, by: Move) -> u32 {
        let id = u32::try_from(self.seen.len()).expect("fewer states than that fit into memory");
        let served = world.is_served();
        self.seen.push(Seen { from, by, next: NOBODY, served });
        *self.report.by_faults.entry(world.faults).or_default() += 1;
        let leads = (0..2).find(|node| served && world.nodes[*node].server.can_acknowledge());
        self.report.served[leads.unwrap_or(2)] += 1;
        id
    }

    /// Everything that may follow.
    fn expand(
        &mut self,
        id: u32,
        world: &World,
        strikes: bool,
        next: &mut Vec<(u32, World)>,
    ) -> Option<(Move, Broken)> {
        let usual = usual(world);
        for what in world.moves().into_iter().filter(|what| strikes || what.is_free()) {
            let after = match caught(|| world.after(what)) {
                Ok(after) => after,
                Err(why) => return Some((what, Broken { invariant: CRASH, what: why })),
            };
            self.report.transitions += 1;
            for (_, decision) in &after.said.decisions {
                let met = (decision.rung.name(), decision.reason.code());
                *self.report.decisions.entry(met).or_default() += 1;
            }
            if let Some(broken) = after.broken.clone() {
                return Some((what, broken));
            }
            let number = fingerprint(&after);
            let to = if let Some(known) = self.known.get(&number) {
                *known
            } else {
                let to = self.note(&after, id, what);
                self.known.insert(number, to);
                next.push((to, after));
                to
            };
            if what == usual {
                self.seen[id as usize].next = to;
            }
        }
        None
    }

    fn path(&self, mut id: u32, last: Option<Move>) -> Vec<Move> {
        let mut path: Vec<Move> = last.into_iter().collect();
        while self.seen[id as usize].from != NOBODY {
            path.push(self.seen[id as usize].by);
            id = self.seen[id as usize].from;
        }
        path.reverse();
        path
    }

    /// L1: a state from which the usual course, with everything healed, never comes to where somebody serves. What was
    /// cut short is given the benefit of the doubt, and what looks like a dead end is walked before it is believed.
    fn dead_end(&self, root: &World) -> Option<Story> {
        // 0: not looked at; 1: on this walk; 2: comes to be served, or to where nobody looked.
        let mut marks = vec![0_u8; self.seen.len()];
        for start in 0..self.seen.len() {
            let mut walk = Vec::new();
            let mut here = start as u32;
            let good = loop {
                if here == NOBODY || marks[here as usize] == 2 || self.seen[here as usize].served {
                    break true;
                }
                if marks[here as usize] == 1 {
                    break false;
                }
                marks[here as usize] = 1;
                walk.push(here);
                here = self.seen[here as usize].next;
            };
            if !good && let Some(story) = self.walked(root, start as u32) {
                return Some(story);
            }
            for id in walk {
                marks[id as usize] = 2;
            }
        }
        None
    }

    fn walked(&self, root: &World, id: u32) -> Option<Story> {
        let mut path = self.path(id, None);
        let mut world = path.iter().fold(root.clone(), |world, what| world.after(*what));
        let end = world.now + ms(120_000);
        while world.now < end {
            if world.is_served() {
                return None;
            }
            let what = usual(&world);
            path.push(what);
            world = match caught(|| world.after(what)) {
                Ok(after) => after,
                Err(what) => return Some(story(root, &path, Broken { invariant: CRASH, what })),
            };
        }
        let what = "nobody serves within two minutes, though nothing goes wrong any more".into();
        Some(story(root, &path, Broken { invariant: "L1", what }))
    }
}
