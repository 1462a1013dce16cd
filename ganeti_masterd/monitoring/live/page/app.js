// The page as a whole: what it hears, which view it shows, when it draws.
import { h, say, set } from "./dom.js";
import { Model } from "./model.js";
import * as sections from "./sections.js";

/** Milliseconds between drawings, askings for nodes and instances, and until a hidden page rests. */
const DRAW = 250;
const ASK = 5000;
const SOON = 1000;
const REST = 60000;
/** Milliseconds that an answer may take. */
const PATIENCE = 15000;

const model = new Model();
const main = document.getElementById("main");
const connection = document.getElementById("connection");

// Views

function overview() {
  const parts = [
    sections.wrong(),
    sections.tiles(),
    sections.running(),
    sections.waiting(),
    sections.failed(),
    sections.timeline(),
    sections.nodes(),
    sections.candidates(),
    sections.daemon(),
    sections.instances(),
  ];
  return {
    element: h("div", { class: "overview" }, ...parts.map((part) => part.element)),
    title: "Overview",
    draw: () => parts.forEach((part) => part.draw(model)),
  };
}

function alone(part, title, search) {
  if (search && part.search) part.search.value = search;
  return { element: h("div", { class: "view whole" }, part.element), title, draw: () => part.draw(model) };
}

const views = {
  "": overview,
  jobs: (_, search) => alone(sections.jobs(model, "jobs", "Jobs", () => true), "Jobs", search),
  nodes: (_, search) => alone(sections.nodes(), "Nodes", search),
  instances: (_, search) => alone(sections.instances(), "Instances", search),
  job: (name) => {
    const id = Number(name);
    askJob(id);
    return sections.job(model, id, () => askJob(id));
  },
  node: (name) => sections.node(model, name),
  instance: (name) => sections.instance(model, name),
};
const TABS = { "": "overview", jobs: "jobs", job: "jobs", nodes: "nodes", node: "nodes", instances: "instances", instance: "instances" };

let view = null;
let looked = null;

function route(first) {
  const [path, search = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [kind, name = ""] = path.split("/");
  const known = Object.hasOwn(views, kind) ? kind : "";
  looked = known === "job" ? Number(plain(name)) : null;
  model.logs.clear();
  view = views[known](plain(name), plain(search));
  main.replaceChildren(h("h1", { class: "hidden" }, view.title), view.element);
  for (const tab of document.querySelectorAll("[data-tab]")) {
    set(tab, "aria-current", tab.dataset.tab === TABS[known] ? "page" : null);
  }
  draw();
  if (first !== true) {
    main.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }
}

function plain(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

// Drawing: what changes meanwhile is drawn together.

let drawn = 0;
let drawing = null;

function draw() {
  drawing = null;
  if (document.hidden) return;
  drawn = performance.now();
  const { state } = model;
  if (state) {
    say(document.getElementById("cluster"), state.cluster);
    say(document.getElementById("master"), `Master ${state.master}`);
    say(document.getElementById("version"), `gnt-masterd ${state.version}`);
    document.title = `${view.title} – ${state.cluster}`;
    view.draw();
  }
}

function changed() {
  drawing ??= setTimeout(draw, Math.max(0, drawn + DRAW - performance.now()));
}

// The stream of events

let stream = null;

function listen() {
  if (stream) return;
  stream = new EventSource("/events");
  stream.addEventListener("message", (event) => {
    const message = JSON.parse(event.data);
    if (message.event === "state") {
      connected("live", "Live");
      if (looked !== null) askJob(looked);
    }
    if (model.take(message)) askSoon(message.event === "state" ? 0 : SOON);
    changed();
  });
  stream.addEventListener("error", () => {
    connected("lost", "Not connected");
    // After an answer that is no stream the browser gives up; this page doesn't.
    if (stream?.readyState === EventSource.CLOSED) {
      hush();
      setTimeout(listen, 3000);
    }
  });
}

function hush() {
  stream?.close();
  stream = null;
}

function connected(state, text) {
  set(connection, "data-state", state);
  say(connection, text);
  set(document.body, "data-connection", state);
}

// Nodes and instances: asked for now and then, and soon after the configuration changed.

let asking = null;
let underWay = false;

function askSoon(delay) {
  if (asking) clearTimeout(asking);
  asking = setTimeout(ask, delay);
}

async function ask() {
  asking = null;
  if (document.hidden || underWay) return;
  underWay = true;
  try {
    const signal = AbortSignal.timeout(PATIENCE);
    const answer = await fetch(`/live/cluster?since=${model.revision}`, { signal });
    if (answer.ok) model.merge(await answer.json());
    changed();
  } catch {
    // A network that drops all packets ends no stream; here it shows.
    connected("lost", "Not connected");
    hush();
    listen();
  } finally {
    underWay = false;
    asking ??= setTimeout(ask, model.daemon?.measuring ? SOON : ASK);
  }
}

async function askJob(id) {
  if (!Number.isSafeInteger(id)) {
    model.logs.set(id, null);
    return;
  }
  try {
    const answer = await fetch(`/live/job?id=${id}`);
    if (looked !== id) return;
    if (answer.ok) model.opened(await answer.json());
    else if (answer.status === 404 || answer.status === 400) model.logs.set(id, null);
    changed();
  } catch {
    // As above.
  }
}

// A page that nobody sees lets go of its place after a while.

let resting = null;

document.addEventListener("visibilitychange", () => {
  clearTimeout(resting);
  if (document.hidden) {
    resting = setTimeout(() => {
      hush();
      connected("waiting", "Resting");
    }, REST);
  } else {
    listen();
    askSoon(0);
    draw();
  }
});

setInterval(() => {
  if (document.hidden) return;
  changed(); // ages grow
}, 1000);

// Colours

const theme = document.getElementById("theme");
theme.value = document.documentElement.dataset.theme ?? "auto";
theme.addEventListener("change", () => {
  if (theme.value === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
  try {
    localStorage.setItem("theme", theme.value);
  } catch {
    // It holds for this page then.
  }
});

// The skip link must not become a route.
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
document.addEventListener("keydown", (event) => {
  const inField = event.target.closest?.("input, select, textarea");
  if (event.key === "/" && !inField && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const box = main.querySelector("input[type=search]");
    if (box) {
      event.preventDefault();
      box.focus();
    }
  }
});

window.addEventListener("hashchange", route);
route(true);
listen();
askSoon(0);
