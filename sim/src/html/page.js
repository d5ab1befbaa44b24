// The page: what it says beside the lanes, and what it does when it is pointed at.

const $ = (query) => document.querySelector(query);
const [chart, map, panel, tip, line] = ["#chart", "#overview", "#panel", "#tip", "#cursor"].map($);

// The instant that the panel tells of; it stays there while it is pinned.
const cursor = { at: violation?.at ?? longestGap?.from ?? 0, pinned: Boolean(violation) };

// --- the head ---------------------------------------------------------------------------------------------------------

function head() {
  const total = (what) => nodes.reduce((sum, node) => sum + node[what].length, 0);
  const ms = (value) => `${value / 1000} s`;
  const { settings } = model;
  const failed = violation?.class === "Crash" ? "An assertion failed" : `${violation?.class} broken`;
  $("#verdict").innerHTML = violation
    ? `<span class="broken">${escaped(violation.invariant)}</span> ${escaped(failed)} at ${shown(violation.at)}`
    : `<span class="held">✓</span> Nothing was broken in ${shown(model.end, 0)}`;
  $("#what").textContent = violation ? violation.what : model.story;
  if (violation && model.story) $("#what").append(document.createElement("br"), model.story);
  document.title = `${violation ? violation.invariant : "✓"} – seed ${model.seed} – matriarch-sim`;
  const facts = [
    ["seed", model.seed],
    ...(model.mutant ? [["planted bug", model.mutant]] : []),
    ["nodes", `${settings.nodes}${settings.nofailover === null ? "" : `, ${names[settings.nofailover]} nofailover`}`],
    ["store members", settings.store_members],
    ["ttl / loop_wait / retry_timeout", [settings.ttl_ms, settings.loop_wait_ms, settings.retry_timeout_ms].map(ms).join(" / ")],
    ["delays", `${settings.delay_us.map((us) => us / 1000).join(" to ")} ms`],
    ["clocks", `± ${settings.clock_ppm} ppm`],
    ["faults", `${model.faults.length} planned, ${strikes.length} struck`],
    ["acknowledged", `${total("acknowledged")}${total("lost") ? `, ${total("lost")} lost` : ""}`],
    ["longest outage", longestGap ? lasting(longestGap.to - longestGap.from) : "none"],
    ["trace hash", model.hash],
  ];
  $("#facts").innerHTML = facts.map(([name, value]) => `<div><dt>${name}</dt><dd>${escaped(value)}</dd></div>`).join("");
  $("#repeat code").textContent = model.repeat;
  $("#repeat button").onclick = () => navigator.clipboard?.writeText(model.repeat);
  plan();
}

function plan() {
  $("#plan summary").textContent = `The plan: ${model.faults.length} ${model.faults.length === 1 ? "fault" : "faults"}`;
  $("#plan tbody").innerHTML = model.faults.map((fault, index) => {
    const strike = strikes.find((one) => one.fault === index);
    const struck = strike ? `<a href="#" data-at="${strike.at}">${shown(strike.at)}</a>` : "never";
    const where = strike && strike.node !== null ? names[strike.node] : "";
    return `<tr><td>${escaped(fault.what)}</td><td>${escaped(fault.when)}</td><td>${lasting(fault.for_ms * 1000)}</td><td>${struck}</td><td>${where}</td></tr>`;
  }).join("");
  $("#plan pre").textContent = model.plan;
}

// What a bar or a mark stands for, by where it is.
const LEGEND = {
  PostgreSQL: [["primary", "server primary"], ["standby", "server standby"], ["standby, no stream", "server waiting"],
    ["starts, recovers", "server starting"], ["is promoted", "server promoting"], ["stops", "server stopping"],
    ["is cloned, rewound, made", "server cloning"], ["held", "server held"], ["backends live on", "server orphans"],
    ["down", "server down"], ["host down", "server off"], ["can acknowledge", "serves"]],
  tenure: [["the agent believes in it", "believes"], ["the store: holds the key", "holds"], ["believed, and not so", "errs"]],
  "agent, guard": [["runs", "agent running"], ["frozen", "agent frozen"], ["dead", "agent dead"], ["armed", "guard armed"],
    ["idle", "guard idle"], ["gone", "guard gone"], ["holds, stops", "guard holding"], ["the fence falls", "guard firing"]],
  decision: [["leads", "decision leads"], ["follows", "decision follows"], ["seeks", "decision seeks"], ["yields", "decision yields"]],
  store: [["leads", "member leading"], ["up", "member up"], ["without quorum", "member waiting"], ["frozen", "member frozen"], ["down", "member down"]],
  ledger: [["acknowledged", "acknowledged"], ["acknowledged and lost", "lost"], ["nobody serves", "gap"]],
};
const OUTCOMES = { done: "done", refused: "refused", unknown: "unknown", open: "no end heard of" };

function legend() {
  const swatch = (inside) => `<svg width="26" height="14" aria-hidden="true">${inside}</svg>`;
  const bar = ([said, kind]) => {
    const thin = !kind.startsWith("server") && !kind.startsWith("decision");
    const [top, height] = thin ? [5, 5] : [2, 11];
    const pattern = PATTERNS[kind.split(" ").at(-1)];
    const over = pattern ? `<rect fill="url(#${pattern})" x="1" y="${top}" width="24" height="${height}"/>` : "";
    return `<span>${swatch(rect(kind, 1, top, 24, height) + over)}${said}</span>`;
  };
  const rows = Object.entries(LEGEND).map(([where, all]) => [where, all.map(bar).join("")]);
  const outcome = ([came, said]) => `<span>${swatch(glyph({ category: "store", came }, 13, 7))}${said}</span>`;
  rows.push(["orders", Object.entries(OUTCOMES).map(outcome).join("")]);
  rows.push(["keys", "<kbd>←</kbd> <kbd>→</kbd> move <kbd>+</kbd> <kbd>−</kbd> zoom <kbd>0</kbd> whole run " +
    "<kbd>e</kbd> <kbd>f</kbd> <kbd>o</kbd> next election, fault, outage (with shift: the one before) <kbd>v</kbd> violation <kbd>Esc</kbd> let the cursor go"]);
  rows.push(["mouse", "wheel: zoom (with shift: move); drag: move; on the whole run, drag: choose; click: pin the cursor"]);
  $("#legend").innerHTML = rows.map(([where, all]) => `<b>${where}</b><div>${all}</div>`).join("");
}

// --- filters and jumps ------------------------------------------------------------------------------------------------

const filters = { postgres: true, store: true, guard: true, others: true, events: true, routine: true, decisions: true, faults: true };

function filterButtons() {
  const names = { postgres: "PostgreSQL", store: "store", guard: "guard", others: "peers, answers, files",
    routine: "routine", events: "events", decisions: "decisions", faults: "fault shading" };
  const icons = { events: "starts", routine: null, decisions: null, faults: null };
  $("#filters").innerHTML = "<span>orders to</span>" + Object.entries(names).map(([kind, said]) => {
    const shape = kind in icons ? icons[kind] : kind;
    const icon = shape ? `<svg width="14" height="14" aria-hidden="true">${glyph({ category: kind, shape, came: "done" }, 7, 7)}</svg>` : "";
    return `<label><input type="checkbox" checked data-kind="${kind}">${icon}${said}</label>`;
  }).join("");
  $("#filters").onchange = ({ target }) => {
    filters[target.dataset.kind] = target.checked;
    show();
  };
}

function jumpButtons() {
  const pairs = Object.entries(jumps).map(([kind, times]) => `<span><button data-jump="${kind}" data-way="-1" aria-label="the ${kind} before">‹</button>` +
    `<b>${kind}</b><small>${times.length}</small><button data-jump="${kind}" data-way="1" aria-label="the next ${kind}">›</button></span>`);
  const broken = violation ? '<button class="broken" data-jump="violation">violation</button>' : "";
  $("#jumps").innerHTML = broken + pairs.join("") + '<span><button data-zoom="2" aria-label="zoom out">−</button><b id="span"></b><button data-zoom="0.5" aria-label="zoom in">+</button></span><button data-zoom="all">whole run</button>';
  $("#jumps").onclick = ({ target }) => {
    const { jump, way, zoom } = target.dataset;
    if (jump) jumpTo(jump, Number(way));
    if (zoom === "all") look(0, model.end);
    else if (zoom) zoomBy(Number(zoom), cursor.at);
  };
}

function jumpTo(kind, way) {
  if (kind === "violation") return openAt();
  const times = jumps[kind];
  const next = way > 0 ? times.find((at) => at > cursor.at) : times.findLast((at) => at < cursor.at);
  if (next !== undefined) pinAt(next);
}

// Pins the cursor, and brings it into sight: near enough to see what happens there.
function pinAt(at) {
  Object.assign(cursor, { at, pinned: true });
  const span = Math.min(view.to - view.from, 6e7);
  if (at < view.from || at > view.to || span < view.to - view.from) look(at - span * 0.4, at + span * 0.6);
  else show();
}

// The first sight: the violation with what led to it, or everything.
function openAt() {
  if (!violation) return look(0, model.end);
  const { at } = violation;
  Object.assign(cursor, { at, pinned: true });
  // What happened is seen from some time before; what did not happen in time, from the end of the faults, or of service.
  let from = at - Math.max(1e7, model.settings.ttl_ms * 1500);
  if (violation.class === "Liveness") {
    const gap = gaps.find((one) => one.to >= at);
    from = Math.min(gap?.from ?? at, chronicle.healed ?? at) - 1e7;
  }
  look(from, at + (at - from) * 0.08);
}

// --- what is in sight -------------------------------------------------------------------------------------------------

function look(from, to) {
  const slack = model.end * 0.02;
  const span = Math.min(Math.max(to - from, 2000), model.end + slack);
  view.from = Math.max(0, Math.min(from, model.end + slack - span));
  view.to = view.from + span;
  show();
}

function zoomBy(times, around) {
  const middle = around >= view.from && around <= view.to ? around : (view.from + view.to) / 2;
  look(middle - (middle - view.from) * times, middle + (view.to - middle) * times);
}

let asked = false;
function show() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    view.width = chart.clientWidth - GUTTER - RIGHT;
    draw(chart);
    overview(map, map.clientWidth - GUTTER - RIGHT);
    $("#span").textContent = lasting(view.to - view.from);
    tell();
    listSoon();
  });
}

// --- the panel --------------------------------------------------------------------------------------------------------

function tell() {
  const { at } = cursor;
  line.hidden = at < view.from || at > view.to;
  line.style.left = `${x(at)}px`;
  line.style.height = `${chart.clientHeight}px`;
  line.classList.toggle("pinned", cursor.pinned);
  line.firstElementChild.textContent = shown(at);
  const store = stateAt(chronicle.store, at);
  panel.innerHTML = `<h2>at ${shown(at)} <small>${cursor.pinned ? "pinned; Esc lets it go" : "click pins it"}</small></h2>` +
    nodes.map((node, index) => toldOfNode(node, index, at, store)).join("") + toldOfStore(store, at);
}

function toldOfNode(node, index, at, store) {
  const state = stateAt(node.states, at);
  if (!state) return `<article><h3>${node.name}</h3><p>nothing yet</p></article>`;
  const said = stateAt(node.decisions, at);
  const since = node.decides[lastIndex(node.decides, at, (one) => one.from)];
  const waits = node.marks.filter((mark) => mark.at <= at && mark.until !== undefined && (mark.until === null || mark.until > at))
    .filter((mark) => mark.came !== "open" || at - mark.at < 1e6);
  const key = store?.holder === index ? store.key : null;
  const belief = state.belief && state.belief.until > at ? state.belief : null;
  const lies = belief && key?.lease !== belief.lease;
  const tenure = belief ? `believes in lease ${belief.lease} for ${lasting(belief.until - at)} more${lies ? ", <b>and the store does not</b>" : ""}`
    : key ? `holds the leader key (lease ${key.lease}) and does not count on it` : "no tenure";
  const rogue = state.serves && !key ? '<p class="lies">can acknowledge commits, and the leader key is not its own</p>' : "";
  const fence = state.armed && state.guard === "armed" ? `, falls in ${lasting(Math.max(0, state.armed.until - at))}` : "";
  return `<article class="${state.serves ? "serving" : ""}"><h3>${node.name} <span class="does">${escaped(serverLabels({ is: state.server })[0])}</span></h3>
    <p class="decided">${said ? `<code>${escaped(text(said[0]))}: ${escaped(text(said[1]))}</code> ${escaped(text(said[2]))}<small> for ${lasting(at - since.from)}</small>` : "no decision: no agent"}</p>
    <p><span class="${lies ? "lies" : ""}">${tenure}</span>; agent ${state.agent}; ${GUARDS[state.guard]}${fence}</p>${rogue}` +
    (waits.length ? `<p>under way: ${waits.slice(0, 8).map((mark) => `${escaped(mark.name)} (${lasting(at - mark.at)})`).join(", ")}</p>` : "") + "</article>";
}

function toldOfStore(store, at) {
  if (!store) return "";
  const key = store.key ? `${names[store.holder]} holds the leader key, lease ${store.key.lease}, ${store.key.until > at ? `which ends in ${lasting(store.key.until - at)}` : "which is over"}` : "no leader key";
  return `<article><h3>store</h3><p>${key}</p><p>members: ${store.members.join(", ")}</p></article>`;
}

// --- the list ---------------------------------------------------------------------------------------------------------

const LIST_MAX = 200;
let listing = 0;

// What is in sight as text, once nothing has moved for a moment.
function listSoon() {
  clearTimeout(listing);
  listing = setTimeout(list, 150);
}

function list() {
  const seen = ({ at }) => at >= view.from && at <= view.to;
  const rows = nodes.flatMap((node) => node.marks.filter((mark) => filters[mark.category] && mark.category !== "routine" && seen(mark))
    .map((mark) => ({ ...mark, node: node.name })));
  rows.push(...strikes.filter(seen).map(({ at, name, node }) => ({ at, node: names[node] ?? "", name, category: "fault" })));
  rows.push(...chronicle.notes.filter(([at, symbol]) => symbol === "L" && seen({ at })).map(([at, , what]) => ({ at, node: "", name: text(what), category: "store" })));
  if (violation && seen(violation)) rows.push({ at: violation.at, node: "", name: `${violation.invariant}: ${violation.what}`, category: "violation" });
  rows.sort((one, other) => one.at - other.at);
  const near = Math.max(0, Math.min(rows.findLastIndex((row) => row.at <= cursor.at) - LIST_MAX / 2, rows.length - LIST_MAX));
  const some = rows.slice(near, near + LIST_MAX);
  $("#list summary").textContent = `What is in sight, as text: ${rows.length > some.length ? `${some.length} of ${rows.length}, around the cursor` : rows.length}`;
  $("#list tbody").innerHTML = some.map((row) => `<tr class="${row.category}"><td><a href="#" data-at="${row.at}">${shown(row.at)}</a></td><td>${row.node}</td><td>${escaped(row.name)}</td>` +
    `<td class="${row.came ?? ""}">${row.because === undefined ? "" : CAME[row.came]}</td><td>${row.because === undefined ? "" : escaped(text(row.because))}</td></tr>`).join("");
}

// --- pointing ---------------------------------------------------------------------------------------------------------

const timeAt = (px) => view.from + ((px - GUTTER) / view.width) * (view.to - view.from);

function pointAt(event) {
  const box = chart.getBoundingClientRect();
  const [left, top] = [event.clientX - box.left, event.clientY - box.top];
  if (!cursor.pinned && left >= GUTTER) {
    cursor.at = Math.round(Math.min(Math.max(timeAt(left), 0), model.end));
    tell();
  }
  // What was drawn last is on top.
  const target = targets.findLast((one) => left >= one.left && left <= one.right && top >= one.top && top <= one.bottom);
  tip.hidden = !target;
  if (!target) return;
  tip.innerHTML = target.told();
  tip.style.left = `${Math.max(0, Math.min(left + 14, box.width - tip.offsetWidth - 4))}px`;
  const below = event.clientY + 20 + tip.offsetHeight < innerHeight;
  tip.style.top = `${below ? top + 16 : top - tip.offsetHeight - 10}px`;
}

function pointing() {
  let drag = null;
  chart.onpointerdown = (event) => {
    // On a text a drag selects it.
    if (event.button !== 0 || event.target.closest("text")) return;
    drag = { from: event.clientX, view: { ...view }, moved: false };
    chart.setPointerCapture(event.pointerId);
  };
  chart.onpointermove = (event) => {
    if (!drag) return pointAt(event);
    const by = event.clientX - drag.from;
    drag.moved ||= Math.abs(by) > 3;
    if (!drag.moved) return;
    tip.hidden = true;
    const span = drag.view.to - drag.view.from;
    look(drag.view.from - (by / view.width) * span, drag.view.to - (by / view.width) * span);
  };
  chart.onpointerup = (event) => {
    if (drag && !drag.moved) {
      cursor.pinned = false;
      pointAt(event);
      cursor.pinned = true;
      tell();
      listSoon();
    }
    drag = null;
  };
  chart.onpointerleave = () => (tip.hidden = true);
  chart.addEventListener("wheel", (event) => {
    const left = event.clientX - chart.getBoundingClientRect().left;
    // Beside the lanes the wheel scrolls the page.
    if (left < GUTTER) return;
    event.preventDefault();
    const sideways = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
    if (sideways) move(sideways / view.width);
    else zoomBy(2 ** (event.deltaY / 300), timeAt(left));
  }, { passive: false });
  overviewPointing();
}

function move(share) {
  const by = share * (view.to - view.from);
  look(view.from + by, view.to + by);
}

// On the whole run a drag chooses what is in sight, a click moves it there.
function overviewPointing() {
  let from = null;
  const at = (event) => {
    const box = map.getBoundingClientRect();
    return ((event.clientX - box.left - GUTTER) / (box.width - GUTTER - RIGHT)) * model.end;
  };
  map.onpointerdown = (event) => {
    from = at(event);
    map.setPointerCapture(event.pointerId);
  };
  map.onpointermove = (event) => {
    if (from !== null && Math.abs(at(event) - from) > model.end / 400) look(Math.min(from, at(event)), Math.max(from, at(event)));
  };
  map.onpointerup = (event) => {
    const span = view.to - view.from;
    if (Math.abs(at(event) - from) <= model.end / 400) look(from - span / 2, from + span / 2);
    from = null;
  };
}

function keyboard(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const step = event.shiftKey ? 0.5 : 0.1;
  const kinds = { e: "election", f: "fault", o: "outage" };
  const does = {
    ArrowLeft: () => move(-step),
    ArrowRight: () => move(step),
    "+": () => zoomBy(0.5, cursor.at),
    "=": () => zoomBy(0.5, cursor.at),
    "-": () => zoomBy(2, cursor.at),
    0: () => look(0, model.end),
    v: () => violation && openAt(),
    Escape: () => {
      cursor.pinned = false;
      tell();
    },
  }[event.key];
  const kind = kinds[event.key.toLowerCase()];
  if (does) does();
  else if (kind) jumpTo(kind, event.shiftKey ? -1 : 1);
  else return;
  event.preventDefault();
}

head();
legend();
filterButtons();
jumpButtons();
pointing();
document.addEventListener("keydown", keyboard);
document.addEventListener("click", (event) => {
  const at = event.target.dataset?.at;
  if (at === undefined) return;
  event.preventDefault();
  pinAt(Number(at));
});
new ResizeObserver(show).observe($("#lanes"));
openAt();
