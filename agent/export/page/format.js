// Words and numbers as people read them, and the one way in which elements are made here: text is text.

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

export function bytes(count) {
  let unit = 0;
  while (count >= 999.5 && unit < UNITS.length - 1) {
    count /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || count >= 99.95 ? 0 : count >= 9.995 ? 1 : 2;
  return `${count.toFixed(digits)}\u202f${UNITS[unit]}`;
}

export function rate(perSecond) {
  return perSecond ? `${bytes(perSecond)}/s` : "–";
}

export function number(count) {
  return count == null ? "–" : count.toLocaleString("en");
}

export function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
}

export function milliseconds(count) {
  return count < 1000 ? `${count.toPrecision(3)}\u202fms` : `${(count / 1000).toPrecision(3)}\u202fs`;
}

export function duration(seconds) {
  const parts = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = Math.max(0, parts.findIndex(([, size]) => seconds >= size));
  const shown = seconds < 1 ? [["s", 1]] : parts.slice(first, first + 2);
  let left = Math.floor(seconds);
  return shown.map(([unit, size]) => {
    const count = Math.floor(left / size);
    left -= count * size;
    return `${count}\u202f${unit}`;
  }).join(" ");
}

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export function vector(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// Touch the document only where something differs: most of a thousand rows stay as they were.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
