// Shows a fleet. Everything that comes from the cluster is set as text, never as markup.
"use strict";

const STATES = {
  Serving: { sign: "\u25CF", tone: "good" },
  Expiring: { sign: "\u25D4", tone: "warn" },
  Outdated: { sign: "\u25D1", tone: "warn" },
  Joining: { sign: "\u25B7", tone: "move" },
  Drifted: { sign: "\u25C6", tone: "bad" },
  Quarantined: { sign: "\u25B2", tone: "bad" },
};
const TONES = ["good", "warn", "bad", "move"];
const byId = (id) => document.getElementById(id);
const list = byId("proxies");
const details = byId("details");
const rows = new Map(); // name -> row as it came
const tiles = new Map(); // name -> element
const filters = new Set(); // states that are shown; all when empty
const counters = {}; // state -> element of its number
const order = new Intl.Collator(undefined, { numeric: true });
let active = ""; // the tile that Tab reaches
let selected = ""; // the tile whose details are open
let query = "";
let unheard = []; // changes that are not announced yet
let head = null; // the fleet as it came
let prefix = ""; // what all names begin with: a tile shows the rest

function put(parent, tag, text, className) {
  const element = document.createElement(tag);
  element.textContent = text;
  if (className) element.className = className;
  parent.append(element);
  return element;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function setTone(element, tone) {
  element.classList.remove(...TONES);
  element.classList.add(tone);
}

function lookOf(row) {
  return STATES[row.state] || { sign: "?", tone: "warn" };
}

function remaining(stamp) {
  if (!stamp) return "no certificate seen";
  const hours = (Date.parse(stamp) - Date.now()) / 3600000;
  if (hours <= 0) return "certificate expired";
  return "mTLS " + (hours >= 48 ? Math.floor(hours / 24) + " d" : Math.max(1, Math.floor(hours)) + " h");
}

function ago(stamp) {
  if (!stamp) return "never";
  const seconds = Math.max(0, (Date.now() - Date.parse(stamp)) / 1000);
  if (seconds < 90) return Math.round(seconds) + " s ago";
  if (seconds < 5400) return Math.round(seconds / 60) + " min ago";
  return seconds < 172800 ? Math.round(seconds / 3600) + " h ago" : Math.round(seconds / 86400) + " d ago";
}

// tiles

function makeTile(name) {
  const tile = document.createElement("li");
  tile.setAttribute("role", "option");
  tile.tabIndex = -1;
  tile.dataset.name = name;
  for (const part of ["name", "state", "facts", "why"]) put(tile, "span", "", part);
  tiles.set(name, tile);
  return tile;
}

function placeTile(tile) {
  const name = tile.dataset.name;
  let low = 0;
  let high = list.children.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (order.compare(list.children[middle].dataset.name, name) < 0) low = middle + 1;
    else high = middle;
  }
  list.insertBefore(tile, list.children[low] || null);
}

function drawTile(row) {
  let tile = tiles.get(row.name);
  const fresh = !tile;
  if (fresh) {
    tile = makeTile(row.name);
    placeTile(tile);
  }
  const look = lookOf(row);
  const revision = row.revision === null ? "no revision" : "revision " + row.revision;
  const why = row.state === "Serving" || row.state === "Expiring" ? "" : row.reason;
  const [name, state, facts, cause] = tile.children;
  setText(name, row.name.slice(prefix.length));
  setText(state, look.sign + " " + row.state);
  setText(facts, revision + (row.synced ? "" : " of " + row.desired) + ", " + remaining(row.expires));
  setText(cause, why);
  setTone(tile, look.tone);
  tile.title = row.name;
  tile.setAttribute("aria-label", [row.name, row.state, facts.textContent, why].filter(Boolean).join(", "));
  tile.setAttribute("aria-selected", String(row.name === selected));
  tile.hidden = !matches(row);
}

function findPrefix() {
  const names = [...rows.keys()];
  if (names.length < 2) return "";
  let common = names[0];
  for (const name of names) {
    while (!name.startsWith(common)) common = common.slice(0, -1);
  }
  return common.slice(0, common.lastIndexOf("-") + 1);
}

// Pods of a Deployment differ at the end, which is where a narrow tile cuts them off.
function shortenNames() {
  const found = findPrefix();
  if (found === prefix) return;
  prefix = found;
  setText(byId("prefix"), prefix && "All names begin with " + prefix);
  for (const row of rows.values()) drawTile(row);
}

function matches(row) {
  if (filters.size && !filters.has(row.state)) return false;
  if (!query) return true;
  const text = [row.name, row.state, row.node, row.ip, row.reason, row.message, row.version, row.hash].join(" ");
  return text.toLowerCase().includes(query);
}

function shownTiles() {
  return [...list.children].filter((tile) => !tile.hidden);
}

function settle() {
  const shown = shownTiles();
  if (!shown.some((tile) => tile.dataset.name === active)) active = shown.length ? shown[0].dataset.name : "";
  for (const tile of list.children) tile.tabIndex = tile.dataset.name === active ? 0 : -1;
  const empty = byId("empty");
  empty.hidden = shown.length > 0;
  setText(empty, rows.size ? "No proxy matches." : "No proxy of this fleet was seen yet.");
}

function filterAll() {
  for (const [name, row] of rows) tiles.get(name).hidden = !matches(row);
  settle();
}

// details

function drawDetails() {
  const row = rows.get(selected);
  details.hidden = !row;
  if (!row) return;
  const look = lookOf(row);
  const state = byId("details-state");
  setText(byId("details-name"), row.name);
  setText(state, look.sign + " " + row.state + (row.reason ? ": " + row.reason : ""));
  setTone(state, look.tone);
  setText(byId("details-message"), row.message);
  const fields = byId("details-fields");
  fields.replaceChildren();
  for (const [label, value] of describe(row)) {
    if (value === "" || value === null) continue;
    put(fields, "dt", label);
    put(fields, "dd", String(value));
  }
  const conditions = byId("details-conditions");
  conditions.replaceChildren();
  byId("details-more").hidden = row.conditions.length === 0;
  for (const condition of row.conditions) {
    const because = condition.message ? ": " + condition.message : "";
    put(conditions, "li", condition.type + " " + condition.status + ", " + condition.reason + because);
  }
}

function describe(row) {
  const push = row.lastPush ? ago(row.lastPush) : "";
  return [
    ["See", row.hint ? "docs/" + row.hint : ""],
    ["Phase", row.phase],
    ["Loaded revision", row.revision === null ? "unknown" : row.revision],
    ["Desired revision", row.desired],
    ["Loaded hash", row.hash],
    ["In traffic", row.traffic ? "yes" : "no"],
    ["Last push", push + (push && row.pushMilliseconds !== null ? ", took " + row.pushMilliseconds + " ms" : "")],
    ["mTLS until", row.expires ? row.expires + " (" + remaining(row.expires) + ")" : "no certificate seen"],
    ["Identity", row.subject],
    ["Issued by", row.issuer],
    ["Protocol", row.protocol],
    ["Node", row.node],
    ["Address", row.ip],
    ["Kong", row.version],
  ];
}

function select(name, focus) {
  const before = tiles.get(selected);
  if (before) before.setAttribute("aria-selected", "false");
  selected = name;
  const tile = tiles.get(name);
  if (tile) tile.setAttribute("aria-selected", "true");
  drawDetails();
  if (name && focus) details.focus({ preventScroll: true });
}

function close() {
  const name = selected;
  select("", false);
  if (tiles.has(name)) move(name);
}

// the head

function drawFleet(fleet) {
  head = fleet;
  const title = fleet.name ? fleet.namespace + "/" + fleet.name : "No ProxyFleet yet";
  setText(byId("fleet"), title);
  document.title = title + " \u00B7 Konverge";
  const parts = ["revision " + fleet.revision];
  if (fleet.lastGood) parts.push("last good " + fleet.lastGood);
  parts.push(fleet.total + (fleet.total === 1 ? " proxy" : " proxies"));
  parts.push("last sync " + ago(fleet.lastSync));
  const summary = byId("summary");
  summary.replaceChildren(parts.join(", "));
  appendRun(summary, fleet.lastRun);
  for (const state of Object.keys(STATES)) setText(counters[state], String(fleet.counts[state] || 0));
  drawNotices(fleet);
}

function appendRun(parent, address) {
  let url;
  try {
    url = new URL(address);
  } catch {
    return;
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") return;
  parent.append(", ");
  const link = put(parent, "a", "last run");
  link.href = url.href;
  link.rel = "noreferrer noopener";
}

function drawNotices(fleet) {
  const texts = [];
  if (fleet.paused) texts.push("Paused: nothing is pushed, rotated or onboarded (spec.paused).");
  if (fleet.pinned) texts.push("Pinned to revision " + fleet.pinned + " (spec.pinnedRevision).");
  if (!fleet.leading) texts.push("This replica stands by; what the leader knows may be newer.");
  for (const condition of fleet.conditions) {
    if (condition.status === "True" && ["Quarantined", "Drift", "IdentityExpiring"].includes(condition.type)) {
      texts.push(condition.reason + ": " + condition.message);
    }
  }
  if (fleet.error) texts.push("The controller's last failure: " + fleet.error);
  const notices = byId("notices");
  if ([...notices.children].map((item) => item.textContent).join("\n") === texts.join("\n")) return;
  notices.replaceChildren();
  for (const text of texts) put(notices, "li", text);
}

function makeFilters() {
  for (const [state, look] of Object.entries(STATES)) {
    const button = put(byId("filters"), "button", look.sign + " " + state + " ", look.tone);
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    counters[state] = put(button, "span", "0");
    button.addEventListener("click", () => {
      const on = !filters.delete(state);
      if (on) filters.add(state);
      button.setAttribute("aria-pressed", String(on));
      filterAll();
    });
  }
}

// what comes from the controller

function takeSnapshot(document_) {
  const names = new Set(document_.proxies.map((row) => row.name));
  takeChange({ ...document_, gone: [...rows.keys()].filter((name) => !names.has(name)) }, true);
}

function takeChange(change, quiet) {
  for (const name of change.gone) {
    rows.delete(name);
    tiles.get(name)?.remove();
    tiles.delete(name);
  }
  for (const row of change.proxies) {
    const before = rows.get(row.name);
    rows.set(row.name, row);
    drawTile(row);
    if (before && before.state !== row.state) {
      unheard.push(row.name + " " + row.state);
      flash(tiles.get(row.name));
    }
  }
  if (quiet) unheard = [];
  shortenNames();
  drawFleet(change.fleet);
  if (selected && (change.gone.includes(selected) || change.proxies.some((row) => row.name === selected))) drawDetails();
  settle();
  document.body.dataset.version = change.version;
}

function flash(tile) {
  tile.classList.remove("fresh");
  requestAnimationFrame(() => tile.classList.add("fresh"));
}

function announce() {
  if (!unheard.length) return;
  const more = unheard.length - 3;
  setText(byId("news"), unheard.slice(0, 3).join(", ") + (more > 0 ? " and " + more + " more" : ""));
  unheard = [];
}

function connect() {
  const stream = new EventSource("/events");
  const link = byId("link");
  const show = (text, className) => {
    setText(link, text);
    link.className = "link " + className;
  };
  stream.addEventListener("snapshot", (event) => takeSnapshot(JSON.parse(event.data)));
  stream.addEventListener("change", (event) => takeChange(JSON.parse(event.data), false));
  stream.addEventListener("open", () => show("live", "live"));
  stream.addEventListener("error", () => {
    show("connection lost, trying again", "lost");
    if (stream.readyState === EventSource.CLOSED) setTimeout(connect, 5000);
  });
}

// the keyboard

function columnsOf(shown) {
  const top = shown[0].offsetTop;
  const second = shown.findIndex((tile) => tile.offsetTop !== top);
  return second < 0 ? shown.length : second;
}

function move(name) {
  const tile = tiles.get(name);
  if (!tile) return;
  tiles.get(active)?.setAttribute("tabindex", "-1");
  active = name;
  tile.tabIndex = 0;
  tile.focus();
}

list.addEventListener("keydown", (event) => {
  const shown = shownTiles();
  const at = shown.findIndex((tile) => tile.dataset.name === active);
  if (at < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
  const columns = columnsOf(shown);
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  let target = at;
  if (event.key in steps) target = at + steps[event.key];
  else if (event.key === "Home") target = 0;
  else if (event.key === "End") target = shown.length - 1;
  else if (event.key === "Enter" || event.key === " ") select(active, true);
  else return;
  event.preventDefault();
  if (target !== at && shown[target]) move(shown[target].dataset.name);
});

list.addEventListener("click", (event) => {
  const tile = event.target.closest("li");
  if (!tile) return;
  move(tile.dataset.name);
  select(tile.dataset.name, false);
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && selected) close();
  else if (event.key === "/" && document.activeElement !== byId("query")) {
    event.preventDefault();
    byId("query").focus();
  }
});

byId("close").addEventListener("click", close);
byId("tools").addEventListener("submit", (event) => event.preventDefault());
byId("query").addEventListener("input", (event) => {
  query = event.target.value.trim().toLowerCase();
  filterAll();
});

makeFilters();
connect();
setInterval(announce, 1000);
setInterval(() => {
  for (const row of rows.values()) drawTile(row);
  if (head) drawFleet(head);
}, 30000);
