// One namespace: its traffic, what it has, why it has it, and what happened to it.

import { SPAN, draw } from "./chart.js";
import { bytes, clock, element, milliseconds, number, rate, setText, vector } from "./format.js";
import { store } from "./store.js";

const REFRESH_MS = 5000;
const place = document.getElementById("detail");

const STATES = {
  ready: "Networked.",
  pending: "Not networked yet.",
  left: "Left alone by policy.",
  failed: "Could not be networked; it is tried again.",
};

let shown = null;

export async function open(key) {
  close();
  shown = { key, receive: [], transmit: [], told: null, timer: 0 };
  place.hidden = false;
  document.title = "vethd";
  place.replaceChildren(element("p", { class: "empty" }, "Asking the agent"));
  await refresh();
  place.focus({ preventScroll: true });
  scrollTo(0, 0);
}

export function close() {
  clearTimeout(shown?.timer);
  shown = null;
  place.hidden = true;
}

async function refresh() {
  const mine = shown;
  clearTimeout(mine.timer);
  const told = await ask(mine.key);
  if (shown !== mine) return;
  mine.timer = setTimeout(refresh, REFRESH_MS);
  if (told === undefined) return;
  if (told && (!mine.told || told.history.receive.length > mine.receive.length)) {
    mine.receive = told.history.receive;
    mine.transmit = told.history.transmit;
  }
  mine.told = told;
  build(mine);
}

// undefined: no answer this time; null: the agent does not know it.
async function ask(key) {
  try {
    const response = await fetch(`/api/namespace?id=${encodeURIComponent(key)}`);
    if (response.status === 404) return null;
    return response.ok ? await response.json() : undefined;
  } catch {
    return undefined;
  }
}

// Called with every sample.
export function tick() {
  if (!shown) return;
  const row = store.keys.get(shown.key);
  if (row) {
    shown.receive = [...shown.receive, row.receive].slice(-SPAN);
    shown.transmit = [...shown.transmit, row.transmit].slice(-SPAN);
  }
  if (shown.parts) showRates(row);
}

export function namesChanged() {
  if (shown?.parts) refresh();
}

function build(mine) {
  const { told } = mine;
  const back = element("p", { class: "back" }, element("a", { href: "#/" }, "← All namespaces"));
  if (!told) {
    mine.parts = null;
    place.replaceChildren(back, element("h2", {}, "Unknown namespace"),
      element("p", { class: "empty" }, "The agent has not seen it lately."));
    return;
  }
  const { namespace } = told;
  const name = namespace?.name ?? told.path.split("/").at(-1);
  document.title = `${name} · vethd`;
  const state = namespace?.state ?? "gone";
  const chart = vector("svg", { class: "chart", role: "img", "aria-label": "Traffic of the last five minutes" });
  mine.parts = { chart, receive: element("dd"), transmit: element("dd"), connections: element("dd") };
  place.replaceChildren(
    back,
    element("h2", { class: "name" }, name, " ", element("span", { class: "badge", "data-state": state }, state)),
    element("section", { class: "card", "aria-label": "Traffic" },
      element("dl", { class: "figures small" },
        figure("received", mine.parts.receive, "receive"),
        figure("sent", mine.parts.transmit, "transmit"),
        figure("connections", mine.parts.connections)),
      chart),
    element("div", { class: "columns" },
      element("section", { class: "card" }, element("h3", {}, "Lease"), facts(leaseOf(namespace))),
      element("section", { class: "card" }, element("h3", {}, "Traffic since it appeared"), facts([...trafficOf(told.traffic), ...connectionsOf(told.connections)])),
      element("section", { class: "card" }, element("h3", {}, "Why"), ...why(namespace, told))),
    element("section", { class: "card" }, element("h3", {}, "Events"), eventsOf(told.events)),
  );
  showRates(store.keys.get(mine.key));
}

function figure(title, value, name = "") {
  return element("div", { class: name }, element("dt", {}, title), value);
}

function showRates(row) {
  const { chart, receive, transmit, connections } = shown.parts;
  setText(receive, rate(row?.receive ?? 0));
  setText(transmit, rate(row?.transmit ?? 0));
  setText(connections, number(row?.connections));
  draw(chart, shown.receive, shown.transmit);
}

function facts(pairs) {
  const known = pairs.filter(([, value]) => value != null && value !== "");
  if (!known.length) return element("p", { class: "empty" }, "None.");
  return element("dl", { class: "facts" }, ...known.flatMap(([title, value]) =>
    [element("dt", {}, title), element("dd", {}, String(value))]));
}

function leaseOf(namespace) {
  if (!namespace) return [];
  return [
    ["Address", namespace.address],
    ["IPv6", namespace.address6],
    ["Network", namespace.network],
    ["Host end", namespace.device],
    ["Cookie", namespace.cookie === "null" ? null : namespace.cookie],
  ];
}

function trafficOf(traffic) {
  if (!traffic) return [];
  const lost = (direction) => `${number(traffic[`${direction}_dropped`])} dropped, ${number(traffic[`${direction}_errors`])} errors`;
  return [
    ["Received", `${bytes(traffic.receive_bytes)}, ${number(traffic.receive_packets)} packets`],
    ["\u00a0", lost("receive")],
    ["Sent", `${bytes(traffic.transmit_bytes)}, ${number(traffic.transmit_packets)} packets`],
    ["\u00a0", lost("transmit")],
  ];
}

function connectionsOf(connections) {
  if (!connections) return [];
  const entries = connections.entries.map(([protocol, state, count]) => `${number(count)} ${protocol} ${state}`);
  return [
    ["Connections", `${number(connections.opened)} opened, ${number(connections.accepted)} accepted`],
    ["Tracked now", entries.join(", ")],
  ];
}

function why(namespace, told) {
  const said = namespace ? STATES[namespace.state] : "It is gone; what was seen of it is below.";
  return [
    element("p", {}, said),
    facts([
      ["Rule", namespace?.rule],
      ["Reason", namespace?.reason],
      ["Path", told.path],
      ["Also named", namespace?.aliases.join(", ")],
      ["Usable after", namespace?.plumb_ms == null ? null : milliseconds(namespace.plumb_ms)],
    ]),
  ];
}

function eventsOf(events) {
  if (!events.length) return element("p", { class: "empty" }, "None yet.");
  return element("ol", { class: "history" }, ...events.toReversed().map(({ time, event, detail }) =>
    element("li", {}, element("time", {}, clock(time)), element("b", { "data-event": event }, event), element("span", {}, detail))));
}
