// What the page knows of the cluster: from /events what happens, from /live/cluster what there is.
import { natural } from "./words.js";

const ENDED = new Set(["success", "error", "canceled"]);
/** How many ended jobs are kept, and how many log lines of each job that runs. */
const MOST_ENDED = 600;
const MOST_LINES = 2000;

export const ended = (job) => ENDED.has(job.status);

export class Model {
  constructor() {
    this.jobs = new Map();
    this.queue = null;
    this.waits = [];
    this.candidates = [];
    this.faults = [];
    this.state = null;
    this.daemon = null;
    this.nodes = new Map();
    this.instances = new Map();
    this.revision = 0;
    /** How far the daemon's clock is ahead of this browser's, in seconds. */
    this.ahead = 0;
    /** Rows made durable a second; null until known. */
    this.rate = null;
    /** Logs of jobs that someone looks at: id to {lines, left_out}. */
    this.logs = new Map();
    this.sorted = { nodes: null, instances: null };
  }

  /** The daemon's time of now, in seconds. */
  now() {
    return Date.now() / 1000 + this.ahead;
  }

  /** Takes a message of /events. Returns true if nodes or instances may have changed. */
  take(message) {
    switch (message.event) {
      case "state":
        this.ahead = message.now - Date.now() / 1000;
        this.state = message;
        this.queue = message.queue;
        this.waits = message.waits;
        this.candidates = message.candidates;
        this.faults = message.faults;
        this.jobs = new Map(message.jobs.map((job) => [job.id, job]));
        return true;
      case "job":
        this.jobs.set(message.job.id, message.job);
        if (this.jobs.size > MOST_ENDED * 1.5) this.#forget();
        return false;
      case "archived":
        this.jobs.delete(message.id);
        return false;
      case "log":
        this.#logged(message);
        return false;
      case "queue":
        this.queue = message.queue;
        return false;
      case "waits":
        this.waits = message.waits;
        return false;
      case "candidates":
        this.candidates = message.candidates;
        return false;
      case "faults":
        this.faults = message.faults;
        return false;
      case "config":
        return true;
      default:
        return false; // a later version may have more kinds
    }
  }

  /** Takes an answer of /live/cluster: the rows that changed. */
  merge(answer) {
    const before = this.daemon;
    this.daemon = answer.daemon;
    const seconds = before ? answer.daemon.now - before.now : 0;
    if (before && seconds > 0 && answer.daemon.rows >= before.rows) {
      this.rate = (answer.daemon.rows - before.rows) / seconds;
    }
    for (const kind of ["nodes", "instances"]) {
      if (answer.full) this[kind] = new Map();
      const known = this[kind];
      const size = known.size;
      for (const name of answer.gone[kind]) known.delete(name);
      for (const row of answer[kind]) known.set(row.name, row);
      if (answer.full || answer[kind].length || known.size !== size) this.sorted[kind] = null;
    }
    this.revision = answer.revision;
  }

  /** Returns the rows of "nodes" or "instances" in the order of names. */
  rows(kind) {
    this.sorted[kind] ??= [...this[kind].values()].sort((a, b) => natural(a.name, b.name));
    return this.sorted[kind];
  }

  /** Takes the answer of /live/job for a job that is looked at. */
  opened(page) {
    const known = this.logs.get(page.job.id);
    const lines = new Map(page.log.map((line) => [line.serial, line]));
    for (const line of known?.lines ?? []) lines.set(line.serial, line);
    this.logs.set(page.job.id, {
      ...page,
      lines: [...lines.values()].sort((a, b) => a.serial - b.serial).slice(-MOST_LINES),
    });
  }

  #logged(message) {
    const job = this.jobs.get(message.id);
    if (job) job.last = message.text;
    const known = this.logs.get(message.id);
    if (known && message.serial > (known.lines.at(-1)?.serial ?? 0)) {
      known.lines.push({ serial: message.serial, time: message.time, text: message.text });
      if (known.lines.length > MOST_LINES) known.lines.shift();
    }
  }

  #forget() {
    const done = [...this.jobs.values()].filter(ended).sort((a, b) => b.id - a.id);
    let failures = 0;
    done.forEach((job, at) => {
      if (at < MOST_ENDED || (job.status === "error" && failures++ < 50)) return;
      this.jobs.delete(job.id);
    });
  }
}

/** Returns what a job does, in short. */
export function title(job) {
  if (!job) return "";
  const [first] = job.summary;
  return job.summary.length > 1 ? `${first} and ${job.summary.length - 1} more` : first;
}

/** Whether a job's summary names an object. */
export function concerns(job, name) {
  return job.summary.some((text) => text.includes(`(${name})`));
}

/**
 * Returns who waits for whom because of locks: [{name, shared, holders, waiters, asked, below}].
 *
 * `holders` are ids of jobs that stand in the way; `asked` is true if these wait themselves, and
 * only asked first. A group whose holders wait for another one's is below that.
 */
export function chains(waits) {
  const groups = new Map();
  for (const wait of waits) {
    for (const lock of wait.locks ?? []) {
      const asked = lock.owners.length === 0;
      const holders = asked ? lock.before : lock.owners;
      const key = `${lock.name} ${holders.join(",")}`;
      if (!groups.has(key)) {
        groups.set(key, { key, name: lock.name, shared: lock.shared, asked, holders, waiters: [], below: [] });
      }
      groups.get(key).waiters.push(wait.job_id);
    }
  }
  // A line of jobs for one lock is one group: those who asked later also wait for its holder.
  const all = [...groups.values()];
  const held = new Map(all.filter((group) => !group.asked).map((group) => [group.name, group]));
  const shown = all.filter((group) => !(group.asked && held.has(group.name)));
  for (const group of all) {
    if (!shown.includes(group)) held.get(group.name).waiters.push(...group.waiters);
  }
  for (const group of shown) group.waiters = [...new Set(group.waiters)].sort((a, b) => a - b);
  const roots = [];
  for (const group of shown) {
    const above = shown.find(
      (other) => other !== group && !within(group, other) && group.holders.some((id) => other.waiters.includes(id)),
    );
    (above ? above.below : roots).push(group);
  }
  return roots;
}

function within(group, other) {
  return group.below.some((below) => below === other || within(below, other));
}
