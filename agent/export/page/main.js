// Ties the parts together: what is shown where, and which keys do what.

import * as detail from "./detail.js";
import { clock, duration, element, milliseconds, number, rate, setText } from "./format.js";
import { follow, listen, store } from "./store.js";
import * as table from "./table.js";
import * as topology from "./topology.js";

const overview = document.getElementById("overview");
const search = document.getElementById("search");
const figures = new Map();

function open(row) {
  location.hash = `#/ns/${row.key}`;
}

function route() {
  const key = /^#\/ns\/([0-9a-f]{16})$/.exec(location.hash)?.[1];
  overview.hidden = Boolean(key);
  if (key) {
    detail.open(key);
  } else {
    detail.close();
    document.title = "vethd";
    table.update();
    table.focusCurrent();
  }
  topology.visible(!key);
}

function show(kind) {
  showConnection();
  if (kind === "connection" || !store.host) return;
  showHost(store.host);
  showEvents();
  detail.tick();
  if (kind === "names") detail.namesChanged();
  if (!overview.hidden) table.update();
  topology.update();
}

function showConnection() {
  const pulse = document.getElementById("pulse");
  pulse.dataset.state = store.connection;
  setText(pulse, { live: "live", lost: "connection lost, trying again", waiting: "connecting" }[store.connection]);
}

function showHost(host) {
  setText(document.getElementById("about"), `version ${host.version} · up ${duration(host.uptime_seconds)}`);
  const problems = document.getElementById("problems");
  problems.hidden = host.problems.length === 0;
  setText(problems, host.problems.join(" · "));
  const sum = (name) => host.networks.reduce((total, network) => total + network[name], 0);
  const { ready, pending, left, failed } = host.namespaces;
  const others = [[pending, "pending"], [failed, "failed"], [left, "left alone"]].filter(([count]) => count);
  let receive = 0;
  let transmit = 0;
  let connections = null;
  for (const row of store.rows.values()) {
    receive += row.receive;
    transmit += row.transmit;
    if (row.connections != null) connections = (connections ?? 0) + row.connections;
  }
  figure("networked", number(ready), others.map(([count, word]) => `${number(count)} ${word}`).join(", ") || "all there are");
  figure("received", rate(receive), "by namespaces", "receive");
  figure("sent", rate(transmit), "by namespaces", "transmit");
  figure(
    "uplink", host.uplink ? rate(host.uplink.receive + host.uplink.transmit) : "none",
    host.uplink ? `↓ ${rate(host.uplink.receive)}  ↑ ${rate(host.uplink.transmit)}` : "no default route",
  );
  setText(figures.get("uplink").title, host.uplink ? `uplink ${host.uplink.device}` : "uplink");
  if (connections != null) figure("connections", number(connections), "tracked by the host");
  figure("leases", number(sum("leases")), `of ${number(sum("capacity"))}`);
}

function figure(title, value, remark, name = "") {
  let parts = figures.get(title);
  if (!parts) {
    parts = { title: element("dt", {}, title), value: element("dd"), remark: element("dd", { class: "remark" }) };
    figures.set(title, parts);
    document.getElementById("figures").append(element("div", { class: name }, parts.title, parts.value, parts.remark));
  }
  setText(parts.value, value);
  setText(parts.remark, remark);
}

let newest = null;

function showEvents() {
  if (store.events[0] === newest || !store.events.length) return;
  [newest] = store.events;
  document.getElementById("events").replaceChildren(...store.events.map((event) => element("li", {},
    element("time", {}, clock(event.time)),
    element("b", { "data-event": event.event }, event.event),
    element("span", { class: "who" }, event.name ?? ""),
    element("span", { class: "what" }, [event.detail, event.ms != null && milliseconds(event.ms)].filter(Boolean).join(" · ")),
  )));
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && document.activeElement !== search) {
    event.preventDefault();
    if (overview.hidden) {
      addEventListener("hashchange", () => search.focus(), { once: true });
      location.hash = "#/";
    } else {
      search.focus();
    }
  } else if (event.key === "Escape" && overview.hidden) {
    location.hash = "#/";
  }
});
addEventListener("hashchange", route);

table.start(open);
topology.start(open);
listen(show);
route();
follow();
