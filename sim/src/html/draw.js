// Drawing: everything that is in sight, anew for each change of what is in sight. What falls together is folded, so that
// the number of elements depends on the width of the page and not on the length of the run.

const GUTTER = 116;
const RIGHT = 12;

// What is in sight, and how wide it is drawn.
const view = { from: 0, to: model.end, width: 1000 };
const x = (at) => GUTTER + ((at - view.from) / (view.to - view.from)) * view.width;
const inSight = (one) => one.to >= view.from && one.from <= view.to;
const clamped = (px) => Math.min(Math.max(px, GUTTER), GUTTER + view.width);

// Where something can be pointed at, and what is said of it then.
let targets = [];

function rect(kind, left, top, width, height) {
  return `<rect class="${kind}" x="${left.toFixed(1)}" y="${top}" width="${Math.max(width, 0.8).toFixed(1)}" height="${height}"/>`;
}

function words(kind, left, top, said, anchor = "start") {
  return `<text class="${kind}" x="${left.toFixed(1)}" y="${top}" text-anchor="${anchor}">${escaped(said)}</text>`;
}

// Patterns say what colours say, to whom they do not.
const PATTERNS = { starting: "rising", stopping: "falling", promoting: "rising", cloning: "dotted", rewinding: "dotted",
  initialising: "dotted", held: "crossed", orphans: "falling", frozen: "rising" };

// A bar for each stretch in sight, with the longest of its labels that fits.
function bars(all, top, height, kind, labels = () => [], told = null) {
  let drawn = "";
  for (const one of all.filter(inSight)) {
    const [left, right] = [clamped(x(one.from)), clamped(x(one.to))];
    const classes = kind(one);
    drawn += rect(classes, left, top, right - left, height);
    const pattern = PATTERNS[one.is?.is ?? one.is];
    if (pattern) drawn += `<rect fill="url(#${pattern})" x="${left.toFixed(1)}" y="${top}" width="${Math.max(right - left, 0.8).toFixed(1)}" height="${height}"/>`;
    const label = labels(one).find((said) => said.length * 6.3 + 10 < right - left);
    if (label) drawn += words(`in ${classes}`, left + 5, top + height / 2 + 4, label);
    if (told) targets.push({ left: left - 1, right: right + 1, top, bottom: top + height, told: () => told(one) });
  }
  return drawn;
}

// --- marks ------------------------------------------------------------------------------------------------------------

// Shapes tell kinds apart where colours do not. All are drawn around 0, 0.
const SHAPES = {
  postgres: "M-4.5-4.5H4.5V4.5H-4.5Z",
  store: "M0-6L6 0L0 6L-6 0Z",
  guard: "M-5-5H5V0C5 3 2 5 0 6C-2 5-5 3-5 0Z",
  others: "M0-4.5A4.5 4.5 0 1 1 0 4.5A4.5 4.5 0 1 1 0-4.5Z",
  starts: "M-4.5 4.5L0-5L4.5 4.5Z",
  dies: "M-4.5-4.5L4.5 4.5M4.5-4.5L-4.5 4.5",
  happens: "M-4.5-4L0 5L4.5-4Z",
};

function glyph(mark, left, top) {
  const shape = mark.shape ?? mark.category;
  return `<path class="mark ${mark.category} ${mark.came} ${shape}" transform="translate(${left.toFixed(1)} ${top})" d="${SHAPES[shape]}"/>`;
}

// Of marks that fall together the gravest is drawn.
const GRAVITY = ["dies", "starts", "guard", "store", "postgres", "happens", "others"];
const grave = (mark) =>
  GRAVITY.indexOf(mark.shape ?? mark.category) - (mark.came === "refused" || mark.came === "unknown" ? 0.5 : 0);

function marks(all, top) {
  let drawn = "";
  const FOLD = 24;
  let group = [];
  const flush = () => {
    if (!group.length) return;
    const left = x(group[0].at);
    const first = group.reduce((best, mark) => (grave(mark) < grave(best) ? mark : best));
    drawn += glyph(first, left, top);
    if (group.length > 1) drawn += words("count", left + 7, top + 3, group.length > 99 ? "99+" : group.length);
    const folded = group;
    targets.push({ left: left - 7, right: left + FOLD - 7, top: top - 8, bottom: top + 8, told: () => toldOfMarks(folded) });
    group = [];
  };
  for (const mark of all) {
    if (mark.category === "routine" || !filters[mark.category] || mark.at < view.from || mark.at > view.to) continue;
    if (group.length && x(mark.at) - x(group[0].at) >= FOLD) flush();
    group.push(mark);
  }
  flush();
  return drawn;
}

// What agents do all the time: a tick for each, at most one a pixel and a half.
function routine(all, top) {
  if (!filters.routine) return "";
  let [path, last, group] = ["", -10, []];
  const flush = () => {
    const folded = group;
    if (folded.length) {
      targets.push({ left: last - 1, right: last + 2, top: top - 1, bottom: top + 7, told: () => toldOfMarks(folded) });
    }
    group = [];
  };
  for (const mark of all) {
    if (mark.category !== "routine" || mark.at < view.from || mark.at > view.to) continue;
    if (x(mark.at) - last >= 1.5) {
      flush();
      last = x(mark.at);
      path += `M${last.toFixed(1)} ${top}v6`;
    }
    group.push(mark);
  }
  flush();
  return `<path class="routine" d="${path}"/>`;
}

const CAME = { done: "done", refused: "refused", unknown: "outcome unknown", cancelled: "cancelled by another",
  orphaned: "its agent was gone", open: "no end was heard of" };

function toldOfMarks(all) {
  const kinds = new Map();
  for (const mark of all) kinds.set(mark.name, [...(kinds.get(mark.name) ?? []), mark]);
  const lines = [];
  for (const [kind, same] of [...kinds].slice(0, 9)) {
    const [first, last] = [same[0], same.at(-1)];
    if (same.length > 1) {
      lines.push(`<b>${escaped(kind)}</b> ${same.length} times, ${shown(first.at)} to ${shown(last.at)}`);
    } else if (first.category === "events") {
      lines.push(`<b>${escaped(kind)}</b> at ${shown(first.at)}`);
    } else {
      const took = first.until === null ? "" : ` after ${lasting(first.until - first.at)}`;
      const why = first.why === null ? "" : `: ${escaped(text(first.why))}`;
      lines.push(`<b>${escaped(kind)}</b> at ${shown(first.at)}, <i class="${first.came}">${CAME[first.came]}${took}${why}</i>` +
        `<br>because ${escaped(text(first.because))}` + (all.length < 4 ? `<br><code>${escaped(text(first.what))}</code>` : ""));
    }
  }
  if (kinds.size > 9) lines.push(`and ${kinds.size - 9} kinds more: zoom in`);
  return lines.join("<hr>");
}

// --- lanes ------------------------------------------------------------------------------------------------------------

const DOES = { off: "host down", down: "down", orphans: "backends live on", initialising: "initdb", cloning: "cloning",
  rewinding: "rewinding", starting: "starting", standby: "standby", waiting: "standby, no stream",
  promoting: "promoting", primary: "primary", stopping: "stopping", held: "held" };
const GUARDS = { gone: "no guard", idle: "guard idle", armed: "guard armed", holding: "guard holds PostgreSQL",
  firing: "the fence falls", winding_down: "guard stops PostgreSQL" };

function serverLabels({ is }) {
  const source = is.source === null ? "" : ` of ${names[is.source]}`;
  const timeline = is.timeline === null ? "" : `, timeline ${is.timeline}`;
  return [DOES[is.is] + source + timeline, DOES[is.is] + source, DOES[is.is]];
}

const spanTold = (head) => (one) =>
  `<b>${escaped(head(one))}</b><br>${shown(one.from)} to ${shown(one.to)} (${lasting(one.to - one.from)})`;

function nodeLane(node, index, top) {
  const lane = LANE.node;
  let drawn = rect("lane", 0, top, GUTTER + view.width + RIGHT, lane.height - 4);
  drawn += words("name", 10, top + 21, node.name);
  for (const [label, at] of [["PostgreSQL", 17], ["tenure", 39], ["agent, guard", 55], ["decision", 71], ["orders", 89]]) {
    drawn += words("row", GUTTER - 8, top + at, label, "end");
  }
  if (filters.faults) drawn += shading((strike) => strike.node === index, top, lane.height - 4);
  const does = (one) => `server ${one.is.is}`;
  drawn += bars(node.server, top + 3, 19, does, serverLabels, spanTold((one) => serverLabels(one)[0]));
  drawn += bars(node.serves, top + 23, 2.5, () => "serves", undefined, spanTold(() => "can acknowledge commits"));
  drawn += bars(node.believes, top + 29, 5, () => "believes", undefined, spanTold((one) => `believes in lease ${one.is}`));
  drawn += bars(node.holds, top + 35, 5, () => "holds", undefined, spanTold((one) => `the store: holds the leader key, lease ${one.is.lease}`));
  drawn += bars(node.errs, top + 28, 13, () => "errs", undefined, spanTold((one) => `believes in lease ${one.is}, and the store does not`));
  drawn += bars(node.agent, top + 44, 5, (one) => `agent ${one.is}`, undefined, spanTold((one) => `agent ${one.is}`));
  drawn += bars(node.guard, top + 51, 4, (one) => `guard ${one.is}`, undefined, spanTold((one) => GUARDS[one.is]));
  drawn += decisions(node, top + 60);
  return drawn + marks(node.marks, top + 84) + routine(node.marks, top + 94);
}

function decisions(node, top) {
  if (!filters.decisions) return "";
  const said = (one) => [`${text(one.is[0])}: ${text(one.is[1])}`, text(one.is[1])];
  const told = (one) => {
    const last = node.decisions[lastIndex(node.decisions, one.to - 1, (item) => item[0])];
    return spanTold((span) => said(span)[0])(one) + `<br>${escaped(text(last[1][2]))}`;
  };
  // Where decisions are narrower than a few pixels the first stands for them.
  const wide = [];
  for (const one of node.decides.filter(inSight)) {
    const last = wide.at(-1);
    if (last && x(one.to) - x(last.from) < 4) last.to = one.to;
    else wide.push({ ...one });
  }
  return bars(wide, top, 14, (one) => `decision ${RUNGS[text(one.is[0])] ?? "seeks"}`, said, told);
}

// The faults that strike a lane, as long as they last.
function shading(which, top, height) {
  return strikes.filter((strike) => which(strike) && inSight({ from: strike.at, to: strike.until })).map((strike) => {
    const [left, right] = [clamped(x(strike.at)), clamped(x(strike.until))];
    return rect("struck", left, top, Math.max(right - left, 1.5), height);
  }).join("");
}

// Faults: each a bar in the first row that is free there, and its name where nothing follows for long enough.
function faultLane(top) {
  const rows = Array.from({ length: LANE.faults.rows }, () => []);
  for (const strike of strikes) {
    if (!inSight({ from: strike.at, to: strike.until })) continue;
    const left = clamped(x(strike.at));
    const bar = { strike, left, right: Math.max(clamped(x(strike.until)), left + 3) };
    const end = (row) => row.at(-1)?.right ?? 0;
    const free = rows.find((row) => end(row) + 2 < left);
    (free ?? rows.reduce((one, other) => (end(other) < end(one) ? other : one))).push(bar);
  }
  let drawn = words("row", GUTTER - 8, top + 13, "faults", "end");
  rows.forEach((row, index) => row.forEach((bar, place) => {
    const next = row[place + 1]?.left ?? GUTTER + view.width;
    drawn += faultBar(bar, next, top + 2 + index * 15);
  }));
  return drawn;
}

function faultBar({ strike, left, right }, next, top) {
  const { at, until, node, name, fault } = strike;
  const where = node === null ? "" : ` ${names[node]}`;
  const label = node === null ? name : name.replace(/ \(.*/, "") + where;
  const width = label.length * 6 + 8;
  const told = () => `<b>${escaped(name)}</b>${node === null ? "" : ` on${where}`}<br>` +
    (until > at ? `${shown(at)} to ${shown(until)} (${lasting(until - at)})` : `at ${shown(at)}`) +
    `<br>planned: ${escaped(model.faults[fault].when)}`;
  targets.push({ left: left - 2, right: right + 2, top, bottom: top + 12, told });
  const bar = rect("fault", left, top, right - left, 12);
  if (right - left > width) return bar + words("faultname inside", left + 4, top + 10, label);
  return right + width < next ? bar + words("faultname", right + 3, top + 10, label) : bar;
}

function storeLane(top) {
  const members = model.settings.store_members;
  let drawn = rect("lane", 0, top, GUTTER + view.width + RIGHT, LANE.store.height - 4);
  drawn += words("name small", 10, top + 15, "store");
  drawn += words("row", GUTTER - 8, top + 15, "leader key", "end");
  if (filters.faults) drawn += shading((strike) => strike.node === null, top, LANE.store.height - 4);
  const labels = (one) => [`${names[one.is.node]} holds it, lease ${one.is.lease}`, `${names[one.is.node]}, lease ${one.is.lease}`, names[one.is.node]];
  drawn += bars(keys, top + 3, 16, () => "holds key", labels, spanTold((one) => labels(one)[0]));
  for (let member = 0; member < members; member++) {
    const y = top + 24 + member * 7;
    const does = stretches(chronicle.store, (state) => state.members[member]);
    drawn += bars(does, y, 5, (one) => `member ${one.is}`, undefined, spanTold((one) => `member ${member} of the store: ${one.is}`));
  }
  return drawn + words("row", GUTTER - 8, top + 26 + members * 3.5, members > 1 ? "members" : "member", "end");
}

// Acknowledged commits by node, as density; what the last primary does not hold; and when nobody served.
function ledger(top) {
  let drawn = rect("lane", 0, top, GUTTER + view.width + RIGHT, LANE.ledger.height - 4);
  drawn += words("name small", 10, top + 14, "ledger");
  const bottom = top + 20 + 15 * nodes.length;
  for (const gap of gaps.filter(inSight)) {
    drawn += rect("nobody", clamped(x(gap.from)), top + 18, clamped(x(gap.to)) - clamped(x(gap.from)), bottom - top - 18);
  }
  const span = (one) => [`nobody serves for ${lasting(one.to - one.from)}`, lasting(one.to - one.from)];
  drawn += bars(gaps, top + 3, 14, () => "gap", span, spanTold((one) => span(one)[0]));
  drawn += words("row", GUTTER - 8, top + 14, "service", "end");
  const BIN = 3;
  const bins = Math.ceil(view.width / BIN);
  const counts = nodes.map((node) => counted(node.acknowledged, bins, BIN));
  const most = Math.max(1, ...counts.flat());
  nodes.forEach((node, index) => {
    const base = top + 33 + 15 * index;
    drawn += words("row", GUTTER - 8, base, node.name, "end") + `<path class="base" d="M${GUTTER} ${base}h${view.width}"/>`;
    let path = "";
    counts[index].forEach((count, bin) => {
      if (count) path += `M${GUTTER + bin * BIN} ${base}v${(-2 - (10 * count) / most).toFixed(1)}h${BIN}V${base}`;
    });
    drawn += `<path class="acknowledged" d="${path}"/>`;
    counted(node.lost, bins, BIN).forEach((count, bin) => {
      if (!count) return;
      drawn += rect("lost", GUTTER + bin * BIN, base - 12, BIN, 12);
      const left = GUTTER + bin * BIN;
      targets.push({ left: left - 1, right: left + BIN + 1, top: base - 13, bottom: base, told: () => `<b>${count} acknowledged by ${node.name}</b> and not held by the last primary` });
    });
  });
  return drawn;
}

function counted(times, bins, width) {
  const counts = new Array(bins).fill(0);
  const first = lastIndex(times, view.from - 1, (at) => at) + 1;
  for (let index = first; index < times.length && times[index] <= view.to; index++) {
    counts[Math.min(bins - 1, Math.floor((x(times[index]) - GUTTER) / width))]++;
  }
  return counts;
}

// A scale whose steps are round and at least so far apart.
function scale(from, to, width, apart) {
  const least = ((to - from) / width) * apart;
  let step = 10 ** Math.floor(Math.log10(least));
  step = [1, 2, 5, 10].map((times) => times * step).find((one) => one >= least);
  const decimals = Math.max(0, 6 - Math.floor(Math.log10(step) + 1e-9));
  const ticks = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) ticks.push(at);
  return { ticks, decimals };
}

function axis(height) {
  const { ticks, decimals } = scale(view.from, view.to, view.width, 90);
  return ticks.map((at) => `<path class="grid" d="M${x(at).toFixed(1)} 16V${height}"/>` +
    words("tick", x(at), 12, shown(at, decimals), "middle")).join("");
}

// The line of something that happened to the whole run, with what it is on a flag: as much as there is room for.
function flag(at, kind, what, height) {
  if (at < view.from || at > view.to) return "";
  const left = x(at);
  const turned = left > GUTTER + view.width / 2;
  const letters = Math.floor(((turned ? left - GUTTER : GUTTER + view.width - left) - 14) / 7);
  const said = what.length > letters ? `${what.slice(0, Math.max(letters - 1, 4))}…` : what;
  const wide = said.length * 7 + 12;
  return `<path class="${kind} line" d="M${left.toFixed(1)} 18V${height}"/>` + rect(`${kind} flag`, turned ? left - wide : left, 18, wide, 16) +
    words(`${kind} said`, turned ? left - 6 : left + 6, 30, said, turned ? "end" : "start");
}

const FAULT_ROWS = strikes.length > 20 ? 4 : 2;
const LANE = {
  faults: { top: 36, rows: FAULT_ROWS, height: 6 + 15 * FAULT_ROWS },
  node: { height: 106 },
  store: { height: 30 + 7 * model.settings.store_members },
  ledger: { height: 28 + 15 * nodes.length },
};

// Draws what is in sight; its height.
function draw(svg) {
  targets = [];
  let top = LANE.faults.top + LANE.faults.height;
  let lanes = faultLane(LANE.faults.top);
  nodes.forEach((node, index) => {
    lanes += nodeLane(node, index, top);
    top += LANE.node.height;
  });
  lanes += storeLane(top);
  top += LANE.store.height;
  lanes += ledger(top);
  top += LANE.ledger.height;
  // The violation's flag is the one to be read.
  const crowded = violation && x(violation.at) - x(chronicle.healed) < violation.what.length * 7 + 150;
  const healed = chronicle.healed === null ? "" : flag(chronicle.healed, "healed", crowded ? "" : "everything heals", top - 4);
  const broken = violation ? flag(violation.at, "violation", `${violation.invariant}: ${violation.what}`, top - 4) : "";
  svg.setAttribute("height", top);
  svg.innerHTML = axis(top - 4) + lanes + healed + broken;
}

// The whole run: who serves, faults, gaps, the violation, and which part is in sight.
function overview(svg, width) {
  const at = (time) => GUTTER + (time / model.end) * width;
  const strip = (all, kind, top, height) => all.map((one) =>
    rect(typeof kind === "string" ? kind : kind(one), at(one.from), top, at(one.to) - at(one.from), height)).join("");
  let drawn = words("row", GUTTER - 8, 19, "whole run", "end") + rect("lane", GUTTER, 2, width, 40);
  drawn += strikes.map((one) => rect("fault", at(one.at), 3, Math.max(at(one.until) - at(one.at), 1.5), 5)).join("");
  nodes.forEach((node, index) => (drawn += strip(node.serves, "server primary", 11 + index * (24 / nodes.length), 20 / nodes.length)));
  drawn += strip(gaps, "gap", 37, 5);
  const { ticks, decimals } = scale(0, model.end, width, 80);
  drawn += ticks.map((time) => words("tick", at(time), 54, shown(time, decimals), "middle")).join("");
  if (violation) drawn += `<path class="violation line" d="M${at(violation.at).toFixed(1)} 0V44"/>`;
  svg.innerHTML = drawn + rect("window", at(view.from), 1, Math.max(at(view.to) - at(view.from), 3), 42);
}

