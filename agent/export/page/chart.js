// Five minutes of one namespace: received above the line, sent below it, both to one scale.

import { rate, vector } from "./format.js";

const HEIGHT = 220;
const LEFT = 78;
const NARROWEST = 280;
const NARROW = 480;
const MIDDLE = HEIGHT / 2 - 8;
const HALF = MIDDLE - 14;
export const SPAN = 300;

export function draw(svg, receive, transmit) {
  const width = Math.max(NARROWEST, svg.clientWidth);
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  const most = niceCeiling(Math.max(1000, ...receive, ...transmit));
  const x = (index) => width - ((receive.length - 1 - index) / (SPAN - 1)) * (width - LEFT);
  const parts = [];
  for (const [share, label] of [[1, most], [0.5, most / 2], [0, 0], [-0.5, most / 2], [-1, most]]) {
    const y = MIDDLE - share * HALF;
    parts.push(vector("line", { x1: LEFT, x2: width, y1: y, y2: y, class: share ? "grid" : "axis" }));
    parts.push(vector("text", { x: LEFT - 10, y: y + 4, class: "label", "text-anchor": "end" }, label ? rate(label) : "0"));
  }
  for (let minute = 0; minute <= 4; minute += width < NARROW ? 2 : 1) {
    const place = width - (minute * 60 / SPAN) * (width - LEFT);
    const text = minute ? `−${minute} min` : "now";
    parts.push(vector("text", { x: place, y: HEIGHT - 4, class: "label", "text-anchor": minute ? "middle" : "end" }, text));
  }
  if (receive.length > 1) {
    parts.push(...area(receive, "receive", x, -HALF / most), ...area(transmit, "transmit", x, HALF / most));
  }
  svg.replaceChildren(...parts);
}

function area(values, name, x, scale) {
  const points = values.map((value, index) => `${x(index).toFixed(1)} ${(MIDDLE + value * scale).toFixed(1)}`);
  const line = points.join("L");
  const under = `M${x(0).toFixed(1)} ${MIDDLE}L${line}L${x(values.length - 1).toFixed(1)} ${MIDDLE}Z`;
  return [vector("path", { d: under, class: `area ${name}` }), vector("path", { d: `M${line}`, class: `line ${name}` })];
}

function niceCeiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 8, 10].find((step) => step * power >= value) * power;
}
