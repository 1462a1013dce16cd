// The timeline: when jobs waited and ran, as bars in lanes.
import { svg, sync, set, say, h } from "./dom.js";
import { duration } from "./words.js";
import { ended, title } from "./model.js";

const WIDTH = 1200;
const LANE = 20;
const MOST_LANES = 14;
const TOP = 22;

export class Timeline {
  constructor() {
    this.minutes = 10;
    this.axis = svg("g", { class: "axis" });
    this.bars = svg("g", { class: "bars" });
    this.drawing = svg("svg", { class: "timeline", role: "group", "aria-label": "Timeline", preserveAspectRatio: "none" }, this.axis, this.bars);
    this.note = h("p", { class: "note" });
    this.element = h("div", {}, this.drawing, this.note);
  }

  draw(jobs, now) {
    const span = this.minutes * 60;
    const begin = now - span;
    const width = Math.max(320, this.drawing.clientWidth || WIDTH);
    const x = (time) => ((time - begin) / span) * width;
    const shown = [...jobs.values()]
      .filter((job) => job.received !== null && (job.ended ?? now) >= begin)
      .sort((a, b) => a.received - b.received || a.id - b.id);
    const lanes = [];
    const placed = [];
    let left = 0;
    for (const job of shown.slice(-400)) {
      const from = Math.max(begin, job.received);
      const to = Math.max(job.ended ?? now, from + (3 / width) * span);
      let lane = lanes.findIndex((end) => end <= from);
      if (lane < 0) lane = lanes.length;
      if (lane >= MOST_LANES) {
        left += 1;
        continue;
      }
      lanes[lane] = to + (2 / width) * span;
      placed.push({ job, lane, from, to });
    }
    left += Math.max(0, shown.length - 400);
    const height = TOP + Math.max(3, lanes.length) * LANE + 4;
    set(this.drawing, "viewBox", `0 0 ${width} ${height}`);
    set(this.drawing, "height", height);
    this.#axis(begin, span, width, height, x);
    sync(this.bars, placed, ({ job }) => job.id, () => this.#bar());
    for (const each of this.bars.children) each.place(x, now);
    const what = `${shown.length} ${shown.length === 1 ? "job" : "jobs"} in the last ${this.minutes} minutes`;
    set(this.drawing, "aria-label", `Timeline: ${what}`);
    say(this.note, left ? `${what}; ${left} of them aren’t drawn.` : `${what}.`);
  }

  #axis(begin, span, width, height, x) {
    const step = span > 1800 ? 600 : span > 600 ? 300 : 60;
    const ticks = [];
    for (let time = Math.ceil(begin / step) * step; time < begin + span; time += step) ticks.push(time);
    sync(this.axis, ticks, (time) => time, () => {
      const line = svg("line", { y1: 16 });
      const text = svg("text", { y: 11 });
      const group = svg("g", {}, line, text);
      let time = null;
      group.update = (given) => {
        time = given;
      };
      group.place = (x, width, height) => {
        const at = x(time).toFixed(1);
        for (const name of ["x1", "x2"]) set(line, name, at);
        set(line, "y2", height);
        set(text, "x", at);
        set(text, "text-anchor", x(time) < 24 ? "start" : x(time) > width - 24 ? "end" : "middle");
        say(text, new Date(time * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" }));
      };
      return group;
    });
    for (const each of this.axis.children) each.place(x, width, height);
  }

  #bar() {
    const wait = svg("rect", { class: "waited", height: 4, rx: 2 });
    const run = svg("rect", { class: "ran", height: 14, rx: 3 });
    const text = svg("text", { class: "label" });
    const name = svg("title");
    const link = svg("a", { tabindex: "-1" }, name, wait, run, text);
    let item = null;
    link.update = (given) => {
      item = given;
    };
    link.place = (x, now) => {
      const { job, lane, from, to } = item;
      set(link, "href", `#/job/${job.id}`);
      set(link, "data-status", job.status);
      const y = TOP + lane * LANE;
      const waits = job.status === "queued" || job.status === "waiting";
      const started = waits ? null : (job.started ?? (ended(job) ? to : null));
      const middle = Math.max(from, started ?? to);
      set(wait, "x", x(from).toFixed(1));
      set(wait, "y", y + 5);
      set(wait, "width", Math.max(0, x(middle) - x(from)).toFixed(1));
      const length = started === null ? 0 : Math.max(3, x(to) - x(middle));
      set(run, "x", x(middle).toFixed(1));
      set(run, "y", y);
      set(run, "width", length.toFixed(1));
      const label = `${job.id} ${title(job)}`;
      set(text, "x", (x(middle) + 5).toFixed(1));
      set(text, "y", y + 11);
      const fits = Math.floor((length - 8) / 7.3);
      say(text, fits < 3 ? "" : label.length <= fits ? label : `${label.slice(0, fits - 1)}…`);
      const took = duration((job.ended ?? now) - (job.started ?? job.received));
      say(name, `Job ${label}: ${job.status}, ${took}`);
    };
    return link;
  }
}
