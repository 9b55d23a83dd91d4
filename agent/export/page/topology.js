// The picture: uplink, bridges, namespaces, and what moves between them.

import { rate, setText } from "./format.js";
import { arrange } from "./layout.js";
import { store } from "./store.js";

const FRAME_MS = 33;
const EASE = 0.12;
const MOST_LINES = 160;
const MOST_MOVING = 150;
const MOST_LABELS = 8;
const NEAR = 16;

const canvas = document.getElementById("topology");
const tip = document.getElementById("tip");
const pen = canvas.getContext("2d");
const still = matchMedia("(prefers-reduced-motion: reduce)");
const where = new Map();

let colours = {};
let plan = null;
let width = 0;
let height = 0;
let onScreen = true;
let chosen = true;
let asked = false;
let lastFrame = 0;
let hovered = null;
let settling = 0;

export function start(open) {
  readColours();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", readColours);
  new ResizeObserver(resize).observe(canvas);
  new IntersectionObserver(([entry]) => {
    onScreen = entry.isIntersecting;
    ask();
  }).observe(canvas);
  document.addEventListener("visibilitychange", ask);
  canvas.addEventListener("pointermove", hover);
  canvas.addEventListener("pointerleave", () => point(null));
  canvas.addEventListener("click", (event) => {
    hover(event);
    if (hovered) open(hovered.row);
  });
}

export function visible(is) {
  chosen = is;
  point(null);
  ask();
}

export function update() {
  if (!store.host || !width) return;
  plan = arrange(width, height, store.host.networks, [...store.rows.values()].filter((row) => !row.alias));
  settling = performance.now() + 1500;
  const ready = store.host.namespaces.ready;
  const label = `${store.host.uplink?.device ?? "no uplink"}, ${plan.hubs.map((hub) => hub.network.bridge).join(", ")}, ${ready} namespaces`;
  if (canvas.getAttribute("aria-label") !== label) canvas.setAttribute("aria-label", label);
  ask();
}

function readColours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["ink", "soft", "faint", "surface", "receive", "transmit", "ready", "pending", "failed", "left"];
  colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  ask();
}

function resize() {
  const scale = devicePixelRatio || 1;
  width = canvas.clientWidth;
  height = canvas.clientHeight;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  where.clear();
  update();
}

function ask() {
  if (asked || !plan || !onScreen || !chosen || document.hidden) return;
  asked = true;
  requestAnimationFrame(frame);
}

function frame(now) {
  asked = false;
  if (now - lastFrame >= FRAME_MS - 4) {
    lastFrame = now;
    draw(now / 1000);
  }
  if (!still.matches && (moves() || now < settling)) ask();
}

function moves() {
  const { uplink } = store.host;
  return Boolean(uplink?.receive || uplink?.transmit || plan.hubs.some((hub) => hub.nodes.some(({ row }) => row.traffic)));
}

function draw(time) {
  pen.clearRect(0, 0, width, height);
  const { uplink } = store.host;
  for (const hub of plan.hubs) {
    link(plan.uplink, hub, hub.network.transmit, hub.network.receive, time);
    hub.nodes.forEach(ease);
  }
  plan.hubs.forEach((hub) => lines(hub, time));
  plan.hubs.forEach(dots);
  plan.hubs.forEach(names);
  for (const hub of plan.hubs) {
    pill(hub.x, hub.y, hub.network.bridge, hub.network.gateway, colours.ink);
  }
  pill(plan.uplink.x, plan.uplink.y, uplink?.device ?? "no uplink", uplink ? "uplink" : "", uplink ? colours.ink : colours.failed);
}

// Nodes drift to their places instead of jumping there.
function ease(node) {
  const at = where.get(node.row.id);
  if (!at || still.matches) {
    where.set(node.row.id, { x: node.toX, y: node.toY });
    [node.x, node.y] = [node.toX, node.toY];
    return;
  }
  at.x += (node.toX - at.x) * EASE;
  at.y += (node.toY - at.y) * EASE;
  [node.x, node.y] = [at.x, at.y];
}

function link(from, to, receive, transmit, time) {
  const bend = plan.narrow ? { x: from.x, y: (from.y + to.y) / 2 } : { x: (from.x + to.x) / 2, y: from.y };
  const path = (share) => {
    const rest = 1 - share;
    return {
      x: rest * rest * from.x + 2 * rest * share * bend.x + share * share * to.x,
      y: rest * rest * from.y + 2 * rest * share * bend.y + share * share * to.y,
    };
  };
  pen.strokeStyle = colours.faint;
  pen.lineWidth = 2 + weight(receive + transmit) * 0.5;
  pen.beginPath();
  pen.moveTo(from.x, from.y);
  pen.quadraticCurveTo(bend.x, bend.y, to.x, to.y);
  pen.stroke();
  travel(path, receive, colours.receive, time, 2.4, 0.1);
  travel((share) => path(1 - share), transmit, colours.transmit, time, 2.4, 0.6);
}

function lines(hub, time) {
  const busy = hub.nodes.filter(({ row }) => row.traffic).sort((a, b) => b.row.traffic - a.row.traffic);
  const drawn = hub.nodes.length <= MOST_LINES ? hub.nodes : busy.slice(0, MOST_LINES);
  pen.lineWidth = 1;
  pen.strokeStyle = colours.faint;
  pen.beginPath();
  for (const node of drawn) {
    pen.moveTo(hub.x, hub.y);
    pen.lineTo(node.x, node.y);
  }
  pen.stroke();
  for (const node of busy.slice(0, MOST_MOVING)) {
    const along = (share) => ({ x: hub.x + (node.x - hub.x) * share, y: hub.y + (node.y - hub.y) * share });
    const phase = (node.row.id * 0.618) % 1;
    const size = Math.min(2.2, 1 + hub.size * 0.2);
    travel(along, node.row.receive, colours.receive, time, size, phase);
    travel((share) => along(1 - share), node.row.transmit, colours.transmit, time, size, phase + 0.5);
  }
}

// 1 at some hundred bytes a second, 7 at a gigabyte.
function weight(bytes) {
  return bytes > 0 ? Math.max(0.5, Math.log10(bytes) - 1.5) : 0;
}

function travel(path, bytes, colour, time, size, phase) {
  const heavy = weight(bytes);
  if (!heavy || still.matches) return;
  const count = Math.ceil(heavy);
  const speed = 0.18 + heavy * 0.05;
  pen.fillStyle = colour;
  for (let i = 0; i < count; i += 1) {
    const share = (time * speed + phase + i / count) % 1;
    const { x, y } = path(share);
    pen.globalAlpha = Math.min(1, 5 * share, 5 * (1 - share));
    pen.beginPath();
    pen.arc(x, y, size, 0, 7);
    pen.fill();
  }
  pen.globalAlpha = 1;
}

function dots(hub) {
  for (const { row, x, y } of hub.nodes) {
    const radius = hub.size + Math.min(weight(row.smooth) * hub.size * 0.12, hub.size);
    pen.beginPath();
    pen.arc(x, y, radius, 0, 7);
    pen.fillStyle = colourOf(row);
    pen.fill();
    if (row === hovered?.row) {
      pen.strokeStyle = colours.ink;
      pen.lineWidth = 1.5;
      pen.beginPath();
      pen.arc(x, y, radius + 4, 0, 7);
      pen.stroke();
    }
  }
}

function colourOf(row) {
  if (row.state !== "ready") return colours[row.state] ?? colours.left;
  if (!row.traffic) return colours.ready;
  return row.receive >= row.transmit ? colours.receive : colours.transmit;
}

function names(hub) {
  const labelled = hub.labelled
    ? hub.nodes
    : hub.nodes.filter(({ row }) => row.smooth > 1000).sort((a, b) => b.row.smooth - a.row.smooth).slice(0, MOST_LABELS);
  const taken = [{ left: hub.x - 46, top: hub.y - 22, wide: 92, tall: 44 }];
  pen.font = `12px ${getComputedStyle(canvas).fontFamily}`;
  pen.textBaseline = "middle";
  for (const { row, x, y } of labelled) {
    const text = short(row.name);
    const wide = pen.measureText(text).width;
    const off = hub.size * 2 + 5;
    const right = (x >= hub.x && x + off + wide < width) || x - off - wide < 0;
    pen.textAlign = right ? "left" : "right";
    const at = x + (right ? off : -off);
    if (!hub.labelled && !isFree(taken, { left: right ? at : at - wide, top: y - 9, wide, tall: 18 })) continue;
    halo(text, at, y, row.traffic || !hub.labelled ? colours.ink : colours.soft);
  }
}

// Labels that would cover another are left out: the busier one has come first.
function isFree(taken, box) {
  const meets = (other) => box.left < other.left + other.wide && other.left < box.left + box.wide
    && box.top < other.top + other.tall && other.top < box.top + box.tall;
  if (taken.some(meets)) return false;
  taken.push(box);
  return true;
}

function short(name) {
  const letters = [...name];
  return letters.length > 13 ? `${letters.slice(0, 12).join("")}…` : name;
}

function halo(text, x, y, colour) {
  pen.strokeStyle = colours.surface;
  pen.lineWidth = 4;
  pen.lineJoin = "round";
  pen.strokeText(text, x, y);
  pen.fillStyle = colour;
  pen.fillText(text, x, y);
}

function pill(x, y, title, remark, colour) {
  const family = getComputedStyle(canvas).fontFamily;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.font = `600 13px ${family}`;
  const wide = Math.max(pen.measureText(title).width, 52) + 24;
  const tall = remark ? 42 : 30;
  pen.beginPath();
  pen.roundRect(x - wide / 2, y - tall / 2, wide, tall, 12);
  pen.fillStyle = colours.surface;
  pen.fill();
  pen.strokeStyle = colours.faint;
  pen.lineWidth = 1.5;
  pen.stroke();
  pen.fillStyle = colour;
  pen.fillText(title, x, y - (remark ? 8 : 0));
  pen.font = `11px ${family}`;
  pen.fillStyle = colours.soft;
  pen.fillText(remark, x, y + 10);
}

function hover(event) {
  const box = canvas.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  let best = null;
  let least = NEAR;
  for (const node of plan?.hubs.flatMap((hub) => hub.nodes) ?? []) {
    const distance = Math.hypot(node.x - x, node.y - y);
    if (distance < least) [best, least] = [node, distance];
  }
  point(best);
}

function point(node) {
  hovered = node;
  tip.hidden = !node;
  canvas.classList.toggle("pointing", Boolean(node));
  if (node) {
    const { row } = node;
    setText(tip, `${row.name}\n${row.address ?? row.state}\nin ${rate(row.receive)}, out ${rate(row.transmit)}`);
    tip.style.left = `${Math.max(90, Math.min(node.x, width - 90))}px`;
    tip.style.top = `${node.y}px`;
    tip.classList.toggle("under", node.y < 90);
  }
  ask();
}
