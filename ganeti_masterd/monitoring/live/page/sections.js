// The parts of the views. Each has an element and a function draw(model).
import { h, say, set, sync, WindowedTable } from "./dom.js";
import { chains, concerns, ended, title } from "./model.js";
import { Timeline } from "./timeline.js";
import { clock, counted, duration, listed, natural, number, size } from "./words.js";

/** Failures of the last hour are among what is wrong. */
const LATELY = 3600;

/** Makes a titled part of a view. */
export function card(name, text, ...children) {
  const heading = h("h2", { id: `title-${name}` }, text);
  const element = h("section", { class: `card ${name}`, "aria-labelledby": `title-${name}` }, h("div", { class: "head" }, heading), ...children);
  return { element, heading, head: element.firstElementChild };
}

function link(kind, name, text = name) {
  return h("a", { href: `#/${kind}/${encodeURIComponent(name)}` }, text);
}

function point(element, kind, name) {
  set(element, "href", `#/${kind}/${encodeURIComponent(name)}`);
}

function status(element, word) {
  set(element, "data-status", word);
  say(element, word);
}

/** Returns how long a job has run or waited, or how long it took. */
function age(job, now) {
  if (job.ended !== null) return duration(job.ended - (job.started ?? job.received ?? job.ended));
  return duration(now - (job.started ?? job.received ?? now));
}

// What is wrong

const FIRST = { bad: 0, warn: 1, note: 2 };

/** Returns what is wrong, the worst first: [{key, level, text, href}]. */
export function troubles(model) {
  const found = [];
  const add = (level, key, text, href = null) => found.push({ level, key, text, href });
  model.faults.forEach((text) => add("bad", `fault ${text}`, text));
  const { daemon, queue } = model;
  if (daemon?.files_fault) add("bad", "files", `Ganeti’s files can’t be written: ${daemon.files_fault}`);
  if (daemon?.config_faults) {
    add("bad", "config", `The configuration has ${counted(daemon.config_faults, "fault")}: “gnt-cluster verify” lists what is wrong.`);
  }
  for (const [name, at] of Object.entries(daemon?.expiring ?? {})) {
    const left = at - model.now();
    if (left <= 0) add("bad", `certificate ${name}`, `The certificate ${name} has expired.`);
    else add("warn", `certificate ${name}`, `The certificate ${name} expires in ${duration(left)}.`);
  }
  const stale = model.candidates.filter((each) => !each.current);
  if (stale.length) {
    const names = listed(stale.slice(0, 3).map((each) => each.node));
    const more = stale.length > 3 ? ` and ${stale.length - 3} more` : "";
    const all = stale.length === model.candidates.length;
    add(all ? "bad" : "warn", "stale", `${names}${more}: ${stale.length === 1 ? "this master candidate doesn’t" : "these master candidates don’t"} have the last changes${all ? ", and no other has them" : ""}.`);
  }
  const broken = model.rows("instances").filter((row) => row.status?.startsWith("ERROR"));
  if (broken.length) {
    const names = listed(broken.slice(0, 3).map((row) => `${row.name} (${row.status})`));
    add("bad", "instances", `${counted(broken.length, "instance is", "instances are")} not as wanted: ${names}${broken.length > 3 ? " and others" : ""}.`, "#/instances?ERROR");
  }
  if (daemon?.measured) {
    const silent = model.rows("nodes").filter((row) => row.vm_capable && row.role !== "offline" && row.memory === null);
    if (silent.length) {
      const names = listed(silent.slice(0, 3).map((row) => row.name));
      add("bad", "silent", `${names}${silent.length > 3 ? ` and ${silent.length - 3} more` : ""}: no answer when last asked.`, "#/nodes");
    }
  }
  if (daemon?.measure_fault) add("warn", "measure", `Nodes could not be asked: ${daemon.measure_fault}`);
  if (queue?.drained) add("warn", "drained", "The queue is drained: no new jobs are taken.");
  const now = model.now();
  if (queue?.watcher_paused_until && queue.watcher_paused_until > now) {
    add("warn", "watcher", `The watcher is paused until ${clock(queue.watcher_paused_until, now)}: nothing is restarted by itself.`);
  }
  if (daemon && daemon.backlog > 10000) add("warn", "backlog", `${number(daemon.backlog)} changes aren’t in Ganeti’s files yet.`);
  if (daemon && daemon.lateness > 0.5) add("warn", "late", `The daemon is busy: its timers run ${daemon.lateness.toFixed(1)} s late.`);
  for (const [name, use] of Object.entries(daemon?.clients ?? {})) {
    if (use.used > use.limit * 0.8) add("warn", `clients ${name}`, `${use.used} of ${use.limit} connections of the socket “${name}” are taken.`);
  }
  const failed = [...model.jobs.values()].filter((job) => job.status === "error" && now - job.ended < LATELY);
  if (failed.length) add("warn", "failed", `${counted(failed.length, "job")} failed within the last hour.`, "#/jobs?error");
  const offline = model.rows("nodes").filter((row) => row.role === "offline");
  if (offline.length) add("note", "offline", `${counted(offline.length, "node is", "nodes are")} marked offline: ${listed(offline.slice(0, 3).map((row) => row.name))}${offline.length > 3 ? " and others" : ""}.`, "#/nodes?offline");
  return found.sort((a, b) => FIRST[a.level] - FIRST[b.level]);
}

const LEVELS = { bad: "Fault", warn: "Look at this", note: "Note" };

export function wrong() {
  const fine = h("p", { class: "fine" }, "Nothing is wrong.");
  const list = h("ul", { class: "troubles" });
  const made = card("wrong", "What is wrong", fine, list);
  return {
    element: made.element,
    draw(model) {
      const found = troubles(model);
      fine.hidden = found.length > 0;
      list.hidden = found.length === 0;
      set(made.element, "data-level", found[0]?.level ?? "good");
      sync(list, found, (each) => each.key, () => {
        const word = h("span", { class: "word" });
        const text = h("a", { class: "text" });
        const item = h("li", {}, word, text);
        item.update = (each) => {
          set(item, "data-level", each.level);
          say(word, LEVELS[each.level]);
          say(text, each.text);
          set(text, "href", each.href);
        };
        return item;
      });
    },
  };
}

// Counts

export function tiles() {
  const list = h("dl", { class: "tiles" });
  return {
    element: h("section", { class: "counts", "aria-label": "Counts" }, list),
    draw(model) {
      const jobs = model.queue?.jobs ?? {};
      const { queue } = model;
      const instances = model.rows("instances");
      const running = instances.filter((row) => (row.status ?? "") === "running").length;
      const known = instances.some((row) => row.status !== null);
      const nodes = model.rows("nodes");
      const online = nodes.filter((row) => row.role !== "offline").length;
      const items = [
        ["Running", number(jobs.running ?? 0), queue ? `${queue.slots_used} of ${queue.slots} slots` : ""],
        ["Waiting", number(jobs.waiting ?? 0), queue ? `${queue.awaiting_locks} for locks` : ""],
        ["Queued", number(jobs.queued ?? 0), queue?.drained ? "queue drained" : "queue open"],
        ["Failed", number(jobs.error ?? 0), "not archived"],
        ["Instances", number(instances.length), known ? `${number(running)} running` : "nodes not asked yet"],
        ["Nodes", number(nodes.length), `${number(online)} online`],
      ];
      sync(list, items, ([name]) => name, ([name]) => {
        const value = h("dd", { class: "value" });
        const more = h("dd", { class: "more" });
        const tile = h("div", { class: "tile" }, h("dt", {}, name), value, more);
        tile.update = ([, text, note]) => {
          say(value, text);
          say(more, note);
        };
        return tile;
      });
    },
  };
}

// Jobs that run

export function running() {
  const list = h("ul", { class: "running-list" });
  const none = h("p", { class: "none" }, "No job runs.");
  const more = h("p", { class: "note" });
  const made = card("running", "Running jobs", none, list, more);
  return {
    element: made.element,
    draw(model) {
      const all = [...model.jobs.values()].filter((job) => job.status === "running" || job.status === "canceling");
      all.sort((a, b) => (a.started ?? a.received) - (b.started ?? b.received) || a.id - b.id);
      none.hidden = all.length > 0;
      const shown = all.slice(0, 25);
      say(more, all.length > shown.length ? `And ${all.length - shown.length} more.` : "");
      more.hidden = all.length <= shown.length;
      sync(list, shown, (job) => job.id, (first) => {
        const name = link("job", first.id, "");
        const what = h("span", { class: "what" });
        const took = h("span", { class: "age" });
        const who = h("span", { class: "who" });
        const done = h("progress", { max: 1 });
        const part = h("span", { class: "part" });
        const last = h("p", { class: "last" });
        set(done, "aria-label", `Job ${first.id}: opcodes done`);
        const item = h("li", {}, h("div", { class: "line" }, name, what, part, took), done, h("div", { class: "line under" }, last, who));
        item.update = (job) => {
          say(name, String(job.id));
          say(what, title(job));
          say(took, age(job, model.now()));
          say(who, job.user ? `by ${job.user}` : "");
          const percent = percentage(job.progress);
          const many = job.summary.length > 1;
          done.hidden = percent === null && !many;
          const value = many ? (job.done + (percent ?? 0)) / job.summary.length : (percent ?? 0);
          if (done.value !== value) done.value = value;
          say(part, many ? `${job.done} of ${job.summary.length}` : (percent === null ? "" : `${Math.round(percent * 100)} %`));
          say(last, job.progress ?? job.last ?? "No line yet");
        };
        return item;
      });
    },
  };
}

/** Returns the part that a job says is done, from a percentage in its words; null without one. */
function percentage(text) {
  const found = text?.match(/(\d{1,3}(?:\.\d+)?)\s*%/);
  return found ? Math.min(1, Number(found[1]) / 100) : null;
}

// Why others wait

export function waiting() {
  const none = h("p", { class: "none" }, "No job waits for another.");
  const tree = h("ul", { class: "chains" });
  const others = h("ul", { class: "others" });
  const made = card("waiting", "Why jobs wait", none, tree, others);
  return {
    element: made.element,
    draw(model) {
      const roots = chains(model.waits);
      const rest = model.waits.filter((wait) => !(wait.locks ?? []).length && wait.kind !== "moment").slice(0, 50);
      none.hidden = roots.length + rest.length > 0;
      tree.hidden = roots.length === 0;
      others.hidden = rest.length === 0;
      drawChains(tree, roots, model);
      sync(others, rest, (wait) => wait.job_id, (first) => {
        const name = `Job ${first.job_id}`;
        const text = h("span");
        const item = h("li", {}, link("job", first.job_id, name), text);
        item.update = (wait) => {
          say(text, wait.sentence.startsWith(`${name} `) ? wait.sentence.slice(name.length) : `: ${wait.sentence}`);
        };
        return item;
      });
    },
  };
}

function drawChains(parent, groups, model) {
  sync(parent, groups, (group) => group.key, () => {
    const sentence = h("p", { class: "sentence" });
    const below = h("ul", { class: "chains" });
    const item = h("li", {}, sentence, below);
    item.update = (group) => {
      sync(sentence, words(group, model), (word) => word.key, (word) => {
        const element = word.job ? link("job", word.job, "") : h(word.strong ? "strong" : "span");
        element.update = (given) => say(element, given.text);
        return element;
      });
      below.hidden = group.below.length === 0;
      drawChains(below, group.below, model);
    };
    return item;
  });
}

/** Returns a chain as the words of a sentence, in which jobs are links. */
function words(group, model) {
  const made = [];
  const text = (value) => made.push({ key: `text ${made.length}`, text: value });
  const job = (id, value) => made.push({ key: `${made.length} job ${id}`, job: id, text: value });
  const jobs = (ids, full) => {
    const shown = ids.slice(0, full ? 3 : 8);
    shown.forEach((id, at) => {
      if (at) text(at === shown.length - 1 && ids.length === shown.length ? " and " : ", ");
      const what = full && model.jobs.has(id) ? ` (${title(model.jobs.get(id))})` : "";
      job(id, full ? `job ${id}${what}` : String(id));
    });
    if (ids.length > shown.length) text(` and ${ids.length - shown.length} more`);
  };
  jobs(group.holders, true);
  const one = group.holders.length === 1;
  text(group.asked ? (one ? " asked first for " : " asked first for ") : one ? " holds " : " hold ");
  made.push({ key: "lock", strong: true, text: group.name });
  text(group.shared && !group.asked ? ", shared; " : "; ");
  jobs(group.waiters, false);
  text(group.waiters.length === 1 ? " waits for it." : " wait for it.");
  return made;
}

// Jobs that failed

export function failed() {
  const none = h("p", { class: "none" }, "No job has failed that isn’t archived.");
  const list = h("ul", { class: "failed-list" });
  const made = card("failed", "Failed lately", none, list);
  return {
    element: made.element,
    draw(model) {
      const shown = [...model.jobs.values()].filter((job) => job.status === "error").sort((a, b) => b.ended - a.ended || b.id - a.id).slice(0, 8);
      none.hidden = shown.length > 0;
      list.hidden = shown.length === 0;
      sync(list, shown, (job) => job.id, (first) => {
        const what = h("span", { class: "what" });
        const when = h("span", { class: "age" });
        const error = h("p", { class: "error" });
        const item = h("li", {}, h("div", { class: "line" }, link("job", first.id, String(first.id)), what, when), error);
        item.update = (job) => {
          say(what, title(job));
          say(when, job.ended === null ? "" : `${duration(model.now() - job.ended)} ago`);
          say(error, job.error ?? "No reason was given.");
        };
        return item;
      });
    },
  };
}

// The timeline

export function timeline() {
  const drawn = new Timeline();
  const choice = h("select", { "aria-label": "Time shown" }, ...[2, 10, 30, 120].map((minutes) => h("option", { value: minutes }, minutes < 120 ? `${minutes} minutes` : "2 hours")));
  choice.value = "10";
  const legend = h("p", { class: "legend" }, ...["waited", "running", "success", "error", "canceled"].map((word) => h("span", { "data-status": word }, word)));
  const made = card("when", "Timeline", drawn.element);
  made.head.append(legend, choice);
  let last = null;
  choice.addEventListener("change", () => {
    drawn.minutes = Number(choice.value);
    if (last) drawn.draw(last.jobs, last.now());
  });
  return {
    element: made.element,
    draw(model) {
      last = model;
      drawn.draw(model.jobs, model.now());
    },
  };
}

// Nodes

function bar(cell) {
  const meter = h("span", { class: "meter", "aria-hidden": "true" }, h("span"));
  const text = h("span", { class: "meter-text" });
  cell.append(meter, text);
}

function used(cell, total, free) {
  const [meter, text] = cell.children;
  meter.hidden = total === null;
  if (total === null) {
    say(text, "–");
    return;
  }
  const part = total > 0 ? Math.min(1, Math.max(0, (total - free) / total)) : 0;
  meter.firstElementChild.style.width = `${(part * 100).toFixed(1)}%`;
  set(meter, "data-level", part > 0.95 ? "bad" : part > 0.85 ? "warn" : "good");
  say(text, `${Math.round(part * 100)} % of ${size(total)}`);
}

const NODE_COLUMNS = [
  { title: "Node", header: true, class: "name", make: (cell) => cell.append(h("a")), update: (cell, row) => named(cell, "node", row.name) },
  { title: "Role", class: "short", make: (cell) => cell.append(h("span", { class: "state" })), update: (cell, row) => status(cell.firstChild, row.role) },
  { title: "Group", class: "narrow-hidden", update: (cell, row) => say(cell, row.group) },
  { title: "Instances", class: "number", update: (cell, row) => say(cell, row.secondaries ? `${row.primaries} + ${row.secondaries}` : String(row.primaries)) },
  { title: "Memory used", class: "bar", make: bar, update: (cell, row) => used(cell, row.memory, row.memory_free) },
  { title: "Disk used", class: "bar", make: bar, update: (cell, row) => used(cell, row.disk, row.disk_free) },
  { title: "CPUs", class: "number narrow-hidden", update: (cell, row) => say(cell, row.cpus === null ? "–" : String(row.cpus)) },
];

function named(cell, kind, name) {
  point(cell.firstChild, kind, name);
  say(cell.firstChild, name);
}

/** Returns when nodes were last asked, in words. */
function measured(model) {
  const { daemon } = model;
  if (!daemon) return "";
  if (daemon.measured === null) return daemon.measuring ? "Nodes are being asked" : "Nodes were not asked yet";
  return `Nodes asked ${duration(model.now() - daemon.measured)} ago`;
}

/** A table with a search; `matches` says whether a row has a word, in lower case. */
function searched(name, text, kind, table, matches, note) {
  const box = h("input", { type: "search", placeholder: "Search", "aria-label": `Search ${kind}`, spellcheck: "false", autocomplete: "off" });
  const count = h("span", { class: "count" });
  const made = card(name, text, table.element);
  const side = h("span", { class: "note" });
  made.head.append(side, count, box);
  let last = null;
  const draw = (model) => {
    last = model;
    const wanted = box.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const all = model.rows(kind);
    const shown = wanted.length ? all.filter((row) => wanted.every((word) => matches(row, word))) : all;
    say(count, wanted.length ? `${number(shown.length)} of ${number(all.length)}` : number(all.length));
    say(side, note(model));
    table.show(shown);
  };
  box.addEventListener("input", () => {
    table.scroller.scrollTop = 0;
    if (last) draw(last);
  });
  return { element: made.element, draw, search: box };
}

const has = (word, ...texts) => texts.some((text) => text?.toLowerCase().includes(word));

export function nodes() {
  const table = new WindowedTable({ label: "Nodes", columns: NODE_COLUMNS, key: (row) => row.name, empty: "No node." });
  return searched("nodes", "Nodes", "nodes", table, (row, word) => has(word, row.name, row.group, row.role), measured);
}

// Instances

const INSTANCE_COLUMNS = [
  { title: "Instance", header: true, class: "name", make: (cell) => cell.append(h("a")), update: (cell, row) => named(cell, "instance", row.name) },
  { title: "State", class: "medium", make: (cell) => cell.append(h("span", { class: "state" })), update: (cell, row) => status(cell.firstChild, row.status ?? `should be ${row.wanted}`) },
  { title: "Node", make: (cell) => cell.append(h("a")), update: (cell, row) => named(cell, "node", row.node) },
  { title: "Secondary", class: "narrow-hidden", update: (cell, row) => say(cell, row.secondaries.join(", ") || "–") },
  { title: "Memory", class: "number", update: (cell, row) => say(cell, row.memory === null ? "–" : size(row.memory)) },
  { title: "CPUs", class: "number narrow-hidden", update: (cell, row) => say(cell, row.vcpus === null ? "–" : String(row.vcpus)) },
  { title: "Disks", class: "short narrow-hidden", update: (cell, row) => say(cell, row.template) },
  { title: "OS", class: "narrow-hidden", update: (cell, row) => say(cell, row.os) },
];

const inInstance = (row, word) => has(word, row.name, row.node, row.status, row.wanted, row.os, row.template, ...row.secondaries);

export function instances() {
  const table = new WindowedTable({ label: "Instances", columns: INSTANCE_COLUMNS, key: (row) => row.name, empty: "No instance." });
  const made = searched("instances", "Instances", "instances", table, inInstance, () => "");
  const states = h("ul", { class: "states", "aria-label": "Instances by state" });
  table.element.before(states);
  let revision = null;
  const draw = (model) => {
    made.draw(model);
    if (revision === model.revision) return;
    revision = model.revision;
    const counts = new Map();
    for (const row of model.rows("instances")) {
      const word = row.status ?? `should be ${row.wanted}`;
      counts.set(word, (counts.get(word) ?? 0) + 1);
    }
    sync(states, [...counts].sort(([a], [b]) => natural(a, b)), ([word]) => word, ([word]) => {
      const count = h("span", { class: "of" });
      const name = h("button", { type: "button", class: "state", "data-status": word }, word);
      name.addEventListener("click", () => {
        made.search.value = made.search.value === word ? "" : word;
        made.search.dispatchEvent(new Event("input"));
      });
      const item = h("li", {}, name, count);
      item.update = ([, value]) => say(count, number(value));
      return item;
    });
  };
  return { element: made.element, draw, search: made.search };
}

// Candidates and the daemon

export function candidates() {
  const none = h("p", { class: "none" }, "There is no other master candidate: nothing is replicated.");
  const list = h("ul", { class: "facts-list" });
  const made = card("candidates", "Master candidates", none, list);
  return {
    element: made.element,
    draw(model) {
      none.hidden = model.candidates.length > 0;
      sync(list, model.candidates, (each) => each.node, (first) => {
        const state = h("span", { class: "state" });
        const behind = h("span", { class: "age" });
        const item = h("li", { class: "line" }, link("node", first.node), state, behind);
        item.update = (each) => {
          status(state, each.current ? "current" : "behind");
          say(behind, each.waiting ? `${counted(each.waiting, "file")} on the way` : "nothing on the way");
        };
        return item;
      });
    },
  };
}

export function daemon() {
  const facts = factList();
  const made = card("daemon", "This daemon", facts.element);
  return {
    element: made.element,
    draw(model) {
      const { daemon: own, state } = model;
      if (!own) return;
      facts.show([
        ["Running for", duration(model.now() - own.since)],
        ["Timers late", `${(own.lateness * 1000).toFixed(1)} ms`],
        ["Made durable", model.rate === null ? `${number(own.rows)} rows` : `${model.rate.toFixed(model.rate < 10 ? 1 : 0)} rows/s`],
        ["Not in files yet", counted(own.backlog, "change")],
        ...Object.entries(own.clients).map(([name, use]) => [`Clients, ${name}`, `${use.used} of ${number(use.limit)}`]),
        ...Object.entries(own.threads).map(([name, use]) => [`Threads, ${name}`, `${use.used} of ${use.limit}`]),
        ["Looking at this", `${own.viewers.used} of ${own.viewers.limit}`],
        ["Configuration", state ? `serial ${number(state.config_serial)}` : ""],
      ]);
    },
  };
}

/** A list of names and values. */
function factList() {
  const element = h("dl", { class: "facts" });
  return {
    element,
    show(items) {
      sync(element, items, ([name]) => name, ([name]) => {
        const value = h("dd");
        const pair = h("div", {}, h("dt", {}, name), value);
        pair.update = ([, text]) => say(value, text);
        return pair;
      });
    },
  };
}

// Lists of jobs

const JOB_COLUMNS = (model) => [
  { title: "Job", header: true, class: "short", make: (cell) => cell.append(h("a")), update: (cell, job) => named(cell, "job", String(job.id)) },
  { title: "Status", class: "short", make: (cell) => cell.append(h("span", { class: "state" })), update: (cell, job) => status(cell.firstChild, job.status) },
  { title: "What", class: "wide", update: (cell, job) => say(cell, title(job)) },
  { title: "By", class: "short narrow-hidden", update: (cell, job) => say(cell, job.user ?? "–") },
  { title: "Came", class: "narrow-hidden", update: (cell, job) => say(cell, job.received === null ? "–" : clock(job.received, model.now())) },
  { title: "Took", class: "number", update: (cell, job) => say(cell, age(job, model.now())) },
];

/** A table of jobs; `choose` returns whether a job is in it. */
export function jobs(model, name, text, choose) {
  const table = new WindowedTable({ label: text, columns: JOB_COLUMNS(model), key: (job) => job.id, empty: "No job that isn’t archived." });
  const newest = () => [...model.jobs.values()].filter(choose).sort((a, b) => b.id - a.id);
  const made = searched(name, text, "jobs", table, (job, word) => has(word, String(job.id), job.status, job.user, job.error, ...job.summary), () => "");
  const rows = { rows: newest };
  return {
    element: made.element,
    search: made.search,
    draw() {
      made.draw(rows);
    },
  };
}

// One job

export function job(model, id, ask) {
  const made = card("job", `Job ${id}`);
  const state = h("span", { class: "state" });
  made.head.append(state);
  const facts = factList();
  const error = h("p", { class: "error" });
  const wait = h("p", { class: "sentence" });
  made.element.append(error, wait, facts.element);
  const body = h("tbody");
  const opcodes = h("section", { class: "card", "aria-labelledby": "title-opcodes" }, h("div", { class: "head" }, h("h2", { id: "title-opcodes" }, "Opcodes")), h("div", { class: "scroll-x", tabindex: "0", role: "region", "aria-label": "Opcodes, scrollable" }, h("table", { "aria-label": "Opcodes" }, h("thead", {}, h("tr", {}, ...["Opcode", "Status", "Began", "Took"].map((each) => h("th", { scope: "col", class: each === "Took" ? "number" : null }, each)))), body)));
  const lines = h("ol", { class: "log", tabindex: "0", "aria-label": "Log lines" });
  const none = h("p", { class: "none" }, "It has logged nothing.");
  const note = h("span", { class: "note" });
  const log = h("section", { class: "card", "aria-labelledby": "title-log" }, h("div", { class: "head" }, h("h2", { id: "title-log" }, "Log"), note), none, lines);
  const gone = h("p", { class: "card none", hidden: "" }, `Job ${id} isn’t in the queue: it was archived, or never was. gnt-job info ${id} knows.`);
  const element = h("div", { class: "view" }, made.element, opcodes, log, gone);
  let seen = null;
  const draw = () => {
    const page = model.logs.get(id);
    const shown = model.jobs.get(id) ?? page?.job;
    const lost = model.logs.has(id) && !page;
    gone.hidden = !lost;
    for (const each of [made.element, opcodes, log]) each.hidden = lost || !shown;
    if (lost || !shown) return;
    if (seen && seen !== shown && (seen.status !== shown.status || seen.done !== shown.done)) ask();
    seen = shown;
    const now = model.now();
    say(made.heading, `Job ${id}: ${title(shown)}`);
    status(state, shown.status);
    error.hidden = !shown.error;
    say(error, shown.error ?? "");
    const why = model.waits.find((each) => each.job_id === id) ?? (ended(shown) ? null : page?.wait);
    wait.hidden = !why || shown.status === "running";
    say(wait, why?.sentence ?? "");
    facts.show([
      ["Sent by", shown.user ?? "not known"],
      ["Came", shown.received === null ? "–" : clock(shown.received, now)],
      ["Began", shown.started === null ? "not yet" : clock(shown.started, now)],
      [ended(shown) ? "Took" : "So far", age(shown, now)],
      ["Opcodes done", `${shown.done} of ${shown.summary.length}`],
      ["Progress", shown.progress ?? "–"],
    ]);
    sync(body, page?.opcodes.map((each, at) => ({ ...each, at })) ?? [], (each) => each.at, () => {
      const cells = [h("th", { scope: "row" }), h("td"), h("td"), h("td", { class: "number" })];
      const word = h("span", { class: "state" });
      cells[1].append(word);
      const row = h("tr", {}, ...cells);
      row.update = (each) => {
        say(cells[0], each.summary);
        status(word, each.status);
        say(cells[2], each.started === null ? "–" : clock(each.started, model.now()));
        say(cells[3], each.started === null ? "–" : duration((each.ended ?? model.now()) - each.started));
      };
      return row;
    });
    const all = page?.lines ?? [];
    none.hidden = all.length > 0;
    lines.hidden = all.length === 0;
    say(note, page?.left_out ? `${counted(page.left_out, "earlier line")} left out` : all.length ? counted(all.length, "line") : "");
    const last = lines.scrollTop + lines.clientHeight >= lines.scrollHeight - 40;
    const before = lines.childElementCount;
    sync(lines, all, (line) => line.serial, (line) => h("li", {}, h("time", {}, clock(line.time, now)), h("span", {}, line.text)));
    if (last && lines.childElementCount !== before) lines.scrollTop = lines.scrollHeight;
  };
  return { element, draw, title: `Job ${id}` };
}

// One instance, one node

export function instance(model, name) {
  const made = card("object", name);
  const state = h("span", { class: "state" });
  made.head.append(state);
  const facts = factList();
  const none = h("p", { class: "none" }, "There is no instance of that name.");
  made.element.append(none, facts.element);
  const list = jobs(model, "jobs-of", "Its jobs", (each) => concerns(each, name));
  return {
    element: h("div", { class: "view" }, made.element, list.element),
    title: name,
    draw() {
      const row = model.instances.get(name);
      none.hidden = Boolean(row) || !model.revision;
      state.hidden = facts.element.hidden = !row;
      if (row) {
        status(state, row.status ?? `should be ${row.wanted}`);
        facts.show([
          ["Wanted", row.wanted],
          ["Primary node", row.node],
          ["Secondary node", row.secondaries.join(", ") || "none"],
          ["Operating system", row.os || "none"],
          ["Disks", row.template || "none"],
          ["Memory", row.memory === null ? "–" : size(row.memory)],
          ["CPUs", row.vcpus === null ? "–" : String(row.vcpus)],
        ]);
      }
      list.draw(model);
    },
  };
}

export function node(model, name) {
  const made = card("object", name);
  const state = h("span", { class: "state" });
  const note = h("span", { class: "note" });
  made.head.append(state, note);
  const facts = factList();
  const none = h("p", { class: "none" }, "There is no node of that name.");
  made.element.append(none, facts.element);
  const table = new WindowedTable({ label: "Its instances", columns: INSTANCE_COLUMNS, key: (row) => row.name, empty: "No instance has a disk or runs here." });
  const made2 = searched("instances-of", "Its instances", "instances", table, inInstance, () => "");
  const list = jobs(model, "jobs-of", "Its jobs", (each) => concerns(each, name));
  const here = { rows: () => model.rows("instances").filter((row) => row.node === name || row.secondaries.includes(name)) };
  return {
    element: h("div", { class: "view" }, made.element, made2.element, list.element),
    title: name,
    draw() {
      const row = model.nodes.get(name);
      none.hidden = Boolean(row) || !model.revision;
      state.hidden = facts.element.hidden = !row;
      if (row) {
        status(state, row.role);
        say(note, measured(model));
        const part = (total, free) => (total === null ? "not known" : `${size(total - free)} of ${size(total)} used`);
        facts.show([
          ["Group", row.group],
          ["Memory", part(row.memory, row.memory_free)],
          ["Disk", part(row.disk, row.disk_free)],
          ["CPUs", row.cpus === null ? "not known" : String(row.cpus)],
          ["Primary of", counted(row.primaries, "instance")],
          ["Secondary of", counted(row.secondaries, "instance")],
        ]);
      }
      made2.draw(here);
      list.draw(model);
    },
  };
}
