// Elements, made and updated in place. All text is set as text, never parsed as HTML.

/** Makes an element: h("td", {class: "wide"}, "text", otherElement). */
export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** Makes an element of SVG. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets an element's text, if it isn't that already: a selection in it lives on. */
export function say(element, text) {
  const wanted = text ?? "";
  const only = element.firstChild;
  if (only && only === element.lastChild && only.nodeType === Node.TEXT_NODE) {
    if (only.data !== wanted) only.data = wanted;
  } else if (element.textContent !== wanted || element.childElementCount) {
    element.textContent = wanted;
  }
}

/** Sets an attribute, if it isn't that already; null takes it away. */
export function set(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/**
 * Makes a parent's children those of `items`, in their order; what is there already is kept.
 *
 * `key` returns an item's key, `make` an element with a function `update(item)`.
 */
export function sync(parent, items, key, make) {
  const known = (parent.kept ??= new Map());
  const wanted = new Set();
  let next = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    wanted.add(name);
    let element = known.get(name);
    if (!element) {
      element = make(item);
      known.set(name, element);
    }
    element.update?.(item);
    if (element === next) next = next.nextElementSibling;
    else parent.insertBefore(element, next);
  }
  for (const [name, element] of known) {
    if (!wanted.has(name)) {
      element.remove();
      known.delete(name);
    }
  }
}

/** Height of a row of a windowed table in pixels at 16 px a rem, and rows kept beyond its edges. */
const ROW = 36;
const BEYOND = 8;

/**
 * A table that has only the rows that can be seen, whatever their number.
 *
 * `columns` are {title, class, make(cell), update(cell, row)}; `key` returns a row's key.
 */
export class WindowedTable {
  constructor({ label, columns, key, empty }) {
    this.columns = columns;
    this.key = key;
    this.rows = [];
    this.before = h("tbody", { "aria-hidden": "true" }, h("tr", {}, h("td", { colspan: columns.length })));
    this.body = h("tbody");
    this.after = h("tbody", { "aria-hidden": "true" }, h("tr", {}, h("td", { colspan: columns.length })));
    const head = h("tr", {}, ...columns.map((each) => h("th", { scope: "col", class: each.class }, each.title)));
    this.table = h("table", { class: "windowed", "aria-label": label }, h("thead", {}, head), this.before, this.body, this.after);
    this.empty = h("p", { class: "none" }, empty);
    this.scroller = h("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": `${label}, scrollable` }, this.table);
    this.element = h("div", {}, this.scroller, this.empty);
    this.scroller.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(this.scroller);
  }

  show(rows) {
    this.rows = rows;
    this.draw();
  }

  draw() {
    const { rows, scroller } = this;
    scroller.hidden = rows.length === 0;
    this.empty.hidden = rows.length > 0;
    set(this.table, "aria-rowcount", rows.length + 1);
    const height = (ROW * parseFloat(getComputedStyle(document.documentElement).fontSize)) / 16;
    const first = Math.max(0, Math.floor(scroller.scrollTop / height) - BEYOND);
    const count = Math.ceil((scroller.clientHeight || 400) / height) + 2 * BEYOND;
    const shown = rows.slice(first, first + count);
    spaced(this.before, first * height);
    spaced(this.after, Math.max(0, rows.length - first - shown.length) * height);
    sync(this.body, shown, this.key, () => this.#row());
    shown.forEach((row, at) => set(this.body.children[at], "aria-rowindex", first + at + 2));
  }

  #row() {
    const cells = this.columns.map((column) => {
      const cell = column.header ? h("th", { scope: "row", class: column.class }) : h("td", { class: column.class });
      column.make?.(cell);
      return cell;
    });
    const element = h("tr", {}, ...cells);
    element.update = (row) => this.columns.forEach((column, at) => column.update(cells[at], row));
    return element;
  }
}

function spaced(body, height) {
  body.hidden = height === 0;
  body.firstElementChild.style.height = `${height}px`;
}
