// The table: sorted, searched, and drawn only where it can be seen.

import { element, number, rate, setText, vector } from "./format.js";
import { SPARK, store } from "./store.js";

const NAMES = new Intl.Collator("en", { numeric: true });
const STATES = ["failed", "pending", "ready", "left"];
const SPARK_WIDTH = 96;
const SPARK_HEIGHT = 22;
const MARGIN_ROWS = 6;

const COLUMNS = [
  { key: "name", title: "Namespace", value: (row) => row.name, text: true },
  { key: "state", title: "State", value: (row) => STATES.indexOf(row.state) },
  { key: "address", title: "Address", value: (row) => row.order },
  { key: "receive", title: "Received", value: (row) => row.receive, down: true },
  { key: "transmit", title: "Sent", value: (row) => row.transmit, down: true },
  { key: "traffic", title: "Last minute", value: (row) => row.smooth, down: true },
  { key: "connections", title: "Connections", value: (row) => row.connections ?? -1, down: true },
];

const heads = document.getElementById("heads");
const body = document.getElementById("body");
const table = document.getElementById("table");
const search = document.getElementById("search");
const order = document.getElementById("order");

let sorting = { column: COLUMNS[5], down: true };
let listed = [];
let current = null;
const drawn = new Map();
const above = spacer();
const below = spacer();

function spacer() {
  return element("tr", { class: "space", "aria-hidden": "true" }, element("td", { colspan: COLUMNS.length }));
}

export function start(open) {
  for (const column of COLUMNS) {
    const button = element("button", { type: "button" }, column.title);
    button.addEventListener("click", () => sortBy(column));
    column.head = element("th", { scope: "col", class: `c-${column.key}` }, button);
    heads.append(column.head);
    order.append(element("option", { value: column.key }, column.title));
  }
  order.addEventListener("change", () => sortBy(COLUMNS.find((column) => column.key === order.value)));
  search.addEventListener("input", () => update());
  body.append(above, below);
  body.addEventListener("click", (event) => {
    const row = rowOf(event.target);
    if (row && !event.target.closest("a") && !getSelection().toString()) open(row);
  });
  body.addEventListener("focusin", (event) => mark(rowOf(event.target)));
  body.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && current) open(current);
    else if (move(event.key)) event.preventDefault();
  });
  search.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" && listed.length) {
      event.preventDefault();
      focus(0);
    } else if (event.key === "Escape") {
      search.value = "";
      update();
    }
  });
  addEventListener("scroll", draw, { passive: true });
  addEventListener("resize", draw);
  showOrder();
}

function sortBy(column) {
  const down = sorting.column === column ? !sorting.down : Boolean(column.down);
  sorting = { column, down };
  showOrder();
  update();
}

function showOrder() {
  order.value = sorting.column.key;
  for (const column of COLUMNS) {
    const mine = column === sorting.column;
    if (mine) column.head.setAttribute("aria-sort", sorting.down ? "descending" : "ascending");
    else column.head.removeAttribute("aria-sort");
  }
}

function compare(one, other) {
  const { column, down } = sorting;
  const [a, b] = [column.value(one), column.value(other)];
  const sign = column.text ? NAMES.compare(a, b) : a === b ? 0 : a < b ? -1 : 1;
  return (down ? -sign : sign) || NAMES.compare(one.name, other.name);
}

export function update() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = [...store.rows.values()].filter((row) => words.every((word) => row.text.includes(word)));
  listed = found.sort(compare);
  table.setAttribute("aria-rowcount", listed.length + 1);
  const all = store.rows.size;
  const many = all === 1 ? "1 namespace" : `${number(all)} namespaces`;
  setText(document.getElementById("count"), words.length ? `${number(listed.length)} of ${many}` : many);
  const empty = document.getElementById("empty");
  empty.hidden = listed.length > 0;
  setText(empty, words.length ? "Nothing matches." : "No namespace yet: ip netns add web");
  if (current && !store.rows.has(current.id)) current = null;
  draw();
}

export function draw() {
  if (!table.offsetParent) return;
  const height = parseFloat(getComputedStyle(table).getPropertyValue("--row")) || 44;
  const top = body.getBoundingClientRect().top;
  const first = Math.max(0, Math.floor(-top / height) - MARGIN_ROWS);
  const last = Math.min(listed.length, Math.ceil((innerHeight - top) / height) + MARGIN_ROWS);
  const shown = listed.slice(first, Math.max(first, last));
  // What has the focus stays in the document, or the keyboard would lose its place.
  const keep = new Set(shown.map((row) => row.id));
  const focused = rowOf(document.activeElement);
  for (const [id, line] of drawn) {
    if (keep.has(id)) continue;
    if (focused?.id === id) line.element.blur();
    line.element.remove();
    drawn.delete(id);
  }
  setHeight(above, first * height);
  setHeight(below, (listed.length - first - shown.length) * height);
  let before = above;
  shown.forEach((row, index) => {
    const line = drawn.get(row.id) ?? makeLine(row);
    fill(line, row, first + index);
    if (before.nextSibling !== line.element) before.after(line.element);
    before = line.element;
  });
  if (focused && keep.has(focused.id) && document.activeElement === document.body) drawn.get(focused.id).element.focus();
}

function setHeight(line, pixels) {
  line.hidden = pixels <= 0;
  line.firstChild.style.height = `${pixels}px`;
}

function makeLine(row) {
  const path = vector("path", { class: "line" });
  const spark = vector("svg", { viewBox: `0 0 ${SPARK_WIDTH} ${SPARK_HEIGHT}`, class: "spark", "aria-hidden": "true" }, path);
  const link = element("a", { href: `#/ns/${row.key}`, tabindex: "-1" });
  const cells = Object.fromEntries(COLUMNS.map(({ key }) => [key, element("td", { class: `c-${key}` })]));
  const name = element("th", { scope: "row", class: "c-name" }, link);
  const badge = element("span", { class: "badge" });
  cells.state.append(badge);
  cells.traffic.append(spark);
  const line = element("tr", { tabindex: "-1" }, name, ...COLUMNS.slice(1).map(({ key }) => cells[key]));
  line.dataset.id = row.id;
  const made = { element: line, link, badge, cells, path };
  drawn.set(row.id, made);
  return made;
}

function fill(line, row, index) {
  setText(line.link, row.name);
  line.link.title = row.name;
  setText(line.badge, row.alias ? "alias" : row.state === "left" ? "left alone" : row.state);
  line.badge.dataset.state = row.alias ? "left" : row.state;
  line.badge.title = row.reason ?? "";
  setText(line.cells.address, row.address ? row.address.split("/")[0] : "–");
  setText(line.cells.receive, rate(row.receive));
  setText(line.cells.transmit, rate(row.transmit));
  setText(line.cells.connections, number(row.connections));
  line.path.setAttribute("d", sparkPath(row));
  line.element.setAttribute("aria-rowindex", index + 2);
  line.element.tabIndex = row === (current ?? listed[0]) ? 0 : -1;
}

function sparkPath(row) {
  const first = SPARK - row.known;
  const known = row.spark.subarray(first);
  const most = Math.max(0, ...known);
  if (!most) return "";
  const step = SPARK_WIDTH / (SPARK - 1);
  const y = (value) => (SPARK_HEIGHT - 1.5 - (value / most) * (SPARK_HEIGHT - 3)).toFixed(1);
  return `M${Array.from(known, (value, i) => `${((first + i) * step).toFixed(1)} ${y(value)}`).join("L")}`;
}

function rowOf(node) {
  const line = node?.closest?.("tr[data-id]");
  return line ? store.rows.get(Number(line.dataset.id)) : undefined;
}

function mark(row) {
  if (!row) return;
  const former = drawn.get(current?.id);
  if (former) former.element.tabIndex = -1;
  current = row;
  const line = drawn.get(row.id);
  if (line) line.element.tabIndex = 0;
}

function move(key) {
  const place = current ? listed.indexOf(current) : 0;
  const page = Math.max(1, Math.floor(innerHeight / 44) - 3);
  const steps = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
  if (!(key in steps) || !listed.length) return false;
  if (place + steps[key] < 0 && key === "ArrowUp") search.focus();
  else focus(Math.max(0, Math.min(listed.length - 1, place + steps[key])));
  return true;
}

function focus(index) {
  current = listed[index];
  if (!drawn.has(current.id)) {
    const height = parseFloat(getComputedStyle(table).getPropertyValue("--row")) || 44;
    scrollTo({ top: scrollY + body.getBoundingClientRect().top + index * height - innerHeight / 2 });
    draw();
  }
  const line = drawn.get(current.id);
  mark(current);
  line.element.focus({ preventScroll: true });
  line.element.scrollIntoView({ block: "nearest" });
}

export function focusCurrent() {
  const index = current ? listed.indexOf(current) : -1;
  if (index >= 0) focus(index);
}
