// Where everything stands in the picture. Who has a place keeps it while others come and go.

const GOLDEN = Math.PI * (3 - Math.sqrt(5));
const RING = 20;
const STRETCH = 2.2;
// Radians of a ring that are left open for the line to the uplink.
const OPENING = 0.55;
const HUB = 46;

const slots = new Map();

// Each network's rows get the lowest free numbers.
function assign(network, rows) {
  const places = slots.get(network) ?? new Map();
  slots.set(network, places);
  const here = new Set(rows.map((row) => row.id));
  for (const id of places.keys()) if (!here.has(id)) places.delete(id);
  const taken = new Set(places.values());
  let free = 0;
  for (const row of rows) {
    if (places.has(row.id)) continue;
    while (taken.has(free)) free += 1;
    taken.add(free);
    places.set(row.id, free);
  }
  const highest = Math.max(-1, ...places.values());
  // After many have gone, those that are left move together.
  if (highest > 2 * rows.length + RING) {
    places.clear();
    return assign(network, rows);
  }
  return { places, count: highest + 1 };
}

export function arrange(width, height, networks, rows) {
  const narrow = width < 640;
  const uplink = narrow ? { x: width / 2, y: 30 } : { x: 74, y: height / 2 };
  const groups = networks.map((network) => ({ network, rows: rows.filter((row) => row.network === network.name) }));
  const weights = groups.map((group) => 3 + Math.sqrt(group.rows.length));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const left = narrow ? 0 : 130;
  const top = narrow ? 64 : 0;
  let at = narrow ? top : left;
  const hubs = groups.map((group, index) => {
    const share = weights[index] / total * (narrow ? height - top : width - left);
    const cell = narrow ? { x: 0, y: at, w: width, h: share } : { x: at, y: 0, w: share, h: height };
    at += share;
    return placeGroup(group, cell, narrow ? -Math.PI / 2 : Math.PI);
  });
  return { uplink, hubs, narrow };
}

function placeGroup({ network, rows }, cell, toUplink) {
  const { places, count } = assign(network.name, rows);
  const labelled = count <= RING;
  const x = cell.x + cell.w / 2;
  const y = cell.y + cell.h / 2;
  const margin = labelled ? 34 : 18;
  const down = cell.h / 2 - margin;
  const across = Math.min(down * STRETCH, cell.w / 2 - (labelled ? 76 : margin));
  const nodes = rows.map((row) => {
    const slot = places.get(row.id);
    const [angle, reach] = labelled
      ? [toUplink + OPENING / 2 + (slot + 0.5) / count * (2 * Math.PI - OPENING), 1]
      : [slot * GOLDEN, Math.sqrt(inner(down) + (1 - inner(down)) * (slot + 0.5) / count)];
    const [toX, toY] = [x + Math.cos(angle) * reach * across, y + Math.sin(angle) * reach * down];
    return { row, x: toX, y: toY, toX, toY };
  });
  const spacing = Math.sqrt((Math.PI * across * down) / Math.max(count, 1));
  return { network, x, y, nodes, labelled, size: Math.max(1.8, Math.min(7, spacing * 0.17)) };
}

// The part of the area that is left free around the bridge.
function inner(down) {
  return Math.min(0.25, (HUB / down) ** 2);
}
