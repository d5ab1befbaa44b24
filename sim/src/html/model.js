"use strict";
// What happened, made ready to be drawn. Times are microseconds of the world's time.

const model = JSON.parse(document.getElementById("data").textContent);
const { chronicle, names, violation } = model;
const text = (id) => (id === null ? "" : chronicle.texts[id]);

// The index of the last item that is not after `at`; -1 if all are.
function lastIndex(items, at, time) {
  let [low, high] = [0, items.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (time(items[middle]) <= at) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

// What a list of [time, state] says at an instant.
function stateAt(states, at) {
  return states[lastIndex(states, at, (item) => item[0])]?.[1];
}

// Stretches of time in which `value` of the state stays the same; those in which it is null are left out.
function stretches(states, value) {
  const found = [];
  states.forEach(([from, state], index) => {
    const to = states[index + 1]?.[0] ?? model.end;
    const is = value(state);
    if (is === null) return;
    const key = JSON.stringify(is);
    const last = found.at(-1);
    if (last && last.key === key && last.to === from) last.to = to;
    else found.push({ from, to, is, key });
  });
  return found;
}

// Where the first stretches are and the second are not.
function without(stretchesOfOne, stretchesOfOther) {
  const left = [];
  for (const one of stretchesOfOne) {
    let from = one.from;
    for (const other of stretchesOfOther) {
      if (other.to <= from || other.from >= one.to) continue;
      if (other.from > from) left.push({ from, to: other.from, is: one.is });
      from = Math.max(from, other.to);
    }
    if (from < one.to) left.push({ from, to: one.to, is: one.is });
  }
  return left;
}

// What a decision comes to at a glance, by its rung: a role that is kept, one that is sought, one that is given up.
const RUNGS = { leader: "leads", follow: "follows", fence: "yields", isolated: "yields", identity: "yields",
  unsupported: "yields", switchover: "yields" };

// What agents do all the time is routine, unless it goes wrong.
const categoryOf = (to, routine, came) => routine && came !== "refused" && came !== "unknown" ? "routine" : to;

// What kind of thing a note is about, by the symbol that a trace has for it.
const NOTES = { "+": "starts", "-": "dies", "^": "starts", ".": "dies", "!": "dies", "#": "dies", "=": "dies" };

function marksOf(story) {
  const orders = story.orders.map(([at, kind, to, routine, what, because, end]) => {
    const [until, came, why] = end ?? [null, "open", null];
    return { at, category: categoryOf(to, routine, came), name: text(kind), what, because, until, came, why };
  });
  const notes = story.notes.map(([at, symbol, what]) => {
    return { at, category: "events", name: text(what), shape: NOTES[symbol] ?? "happens", came: "done" };
  });
  return [...orders, ...notes].sort((one, other) => one.at - other.at);
}

// Under which lease each node holds the leader key.
const keys = stretches(chronicle.store, (state) =>
  state.holder === null ? null : { node: state.holder, lease: state.key.lease });

const nodes = chronicle.nodes.map((story, index) => {
  const believes = [];
  for (const [place, [from, state]] of story.states.entries()) {
    if (!state.belief) continue;
    const to = Math.min(story.states[place + 1]?.[0] ?? model.end, state.belief.until);
    const last = believes.at(-1);
    if (last && last.is === state.belief.lease && last.to === from) last.to = to;
    else believes.push({ from, to, is: state.belief.lease });
  }
  const holds = keys.filter((key) => key.is.node === index);
  let at = 0;
  const acknowledged = story.acknowledged.map((wait) => (at += wait));
  return {
    name: names[index],
    states: story.states,
    server: stretches(story.states, (state) => state.server),
    serves: stretches(story.states, (state) => (state.serves ? true : null)),
    agent: stretches(story.states, (state) => state.agent),
    guard: stretches(story.states, (state) => state.guard),
    believes,
    holds,
    // Belief that the store does not share: nothing, or the few milliseconds in which a message is on its way.
    errs: believes.flatMap((one) => without([one], holds.filter((key) => key.is.lease === one.is))),
    decisions: story.decisions,
    decides: stretches(story.decisions, (said) => said && said.slice(0, 2)),
    marks: marksOf(story),
    acknowledged,
    lost: story.lost.map((place) => acknowledged[place]),
  };
});

// When no server could acknowledge a commit, from the first that did on.
const gaps = (() => {
  const served = nodes.flatMap((node) => node.serves).sort((one, other) => one.from - other.from);
  return served.length ? without([{ from: served[0].from, to: model.end, is: null }], served) : [];
})();

// Faults that struck. What has no end of its own is a mark.
const strikes = chronicle.strikes.map(({ fault, at, until, node }) => {
  return { fault, at, until: until ?? at, node, name: model.faults[fault].what };
});

// The longest time in which nobody served.
const longestGap = gaps.reduce((longest, gap) => (longest && longest.to - longest.from >= gap.to - gap.from ? longest : gap), null);

// What the buttons jump between.
const jumps = {
  election: keys.map((key) => key.from),
  fault: strikes.map((strike) => strike.at),
  outage: gaps.map((gap) => gap.from),
};

function shown(at, decimals = 3) {
  return `${(at / 1e6).toFixed(decimals)} s`;
}

// How long: with as many digits as matter.
function lasting(us) {
  if (us < 1000) return `${us} µs`;
  if (us < 1e6) return `${Math.round(us / 1000)} ms`;
  return us < 1e7 ? `${(us / 1e6).toFixed(2)} s` : `${(us / 1e6).toFixed(1)} s`;
}

function escaped(words) {
  return String(words).replace(/[&<>"]/g, (letter) => `&#${letter.charCodeAt(0)};`);
}

