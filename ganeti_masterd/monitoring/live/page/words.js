// Numbers, times and lists as words. Pure.

/** Returns seconds as a short duration: "4 s", "3 min", "2 h 5 min", "3 d 4 h". */
export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) {
    const left = whole % 60;
    return whole < 600 && left ? `${Math.floor(whole / 60)} min ${left} s` : `${Math.floor(whole / 60)} min`;
  }
  if (whole < 86400) {
    const minutes = Math.floor((whole % 3600) / 60);
    return `${Math.floor(whole / 3600)} h${minutes ? ` ${minutes} min` : ""}`;
  }
  const hours = Math.floor((whole % 86400) / 3600);
  return `${Math.floor(whole / 86400)} d${hours ? ` ${hours} h` : ""}`;
}

/** Returns a count with its noun: "1 job", "3 jobs". */
export function counted(count, noun, plural = `${noun}s`) {
  return `${number(count)} ${count === 1 ? noun : plural}`;
}

/** Returns a whole number with separators. */
export function number(value) {
  return value.toLocaleString("en-GB");
}

/** Returns MiB as a size of three digits. */
export function size(mebibytes) {
  if (mebibytes < 1024) return `${mebibytes} MiB`;
  const gibibytes = mebibytes / 1024;
  if (gibibytes < 1024) return `${gibibytes.toFixed(gibibytes < 10 ? 1 : 0)} GiB`;
  return `${(gibibytes / 1024).toFixed(1)} TiB`;
}

/** Returns words as a list: "a, b and c". */
export function listed(words) {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}

/** Returns seconds since the epoch as a time of day, with the date if it isn't today's. */
export function clock(seconds, now = Date.now() / 1000) {
  const then = new Date(seconds * 1000);
  const time = then.toLocaleTimeString("en-GB");
  return then.toDateString() === new Date(now * 1000).toDateString()
    ? time
    : `${then.toLocaleDateString("en-CA")} ${time}`;
}

/** Compares names so that node2 comes before node10. */
export const natural = new Intl.Collator("en", { numeric: true }).compare;
