// What the agent last told, kept up to date by its event stream.

export const SPARK = 60;
const MOST_EVENTS = 60;
const RETRY_MS = 5000;
const SMOOTHING = 0.4;

export const store = {
  rows: new Map(),
  keys: new Map(),
  host: null,
  events: [],
  connection: "waiting",
};

const listeners = new Set();

export function listen(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function tell(kind) {
  for (const listener of listeners) listener(kind);
}

export function follow() {
  const source = new EventSource("/api/live");
  source.addEventListener("whole", (event) => take(JSON.parse(event.data), true));
  source.addEventListener("news", (event) => take(JSON.parse(event.data), false));
  source.addEventListener("error", () => {
    connection("lost");
    // A refusal (too many viewers) ends an EventSource for good; a broken connection it mends itself.
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, RETRY_MS);
  });
  // A page that is kept in the back of the browser must not keep the agent at work.
  addEventListener("pagehide", () => source.close(), { once: true });
  addEventListener("pageshow", (event) => event.persisted && location.reload(), { once: true });
}

function connection(state) {
  if (store.connection === state) return;
  store.connection = state;
  tell("connection");
}

function take(news, whole) {
  if (whole) {
    store.rows.clear();
    store.keys.clear();
  }
  for (const id of news.gone ?? []) {
    const row = store.rows.get(id);
    store.rows.delete(id);
    if (row && store.keys.get(row.key) === row) store.keys.delete(row.key);
  }
  for (const told of news.rows) enter(told);
  const { rates } = news;
  for (let i = 0; i < rates.length; i += 4) {
    const row = store.rows.get(rates[i]);
    if (row) [row.receive, row.transmit, row.connections] = [rates[i + 1], rates[i + 2], rates[i + 3]];
  }
  for (const [id, spark] of Object.entries(news.sparks ?? {})) {
    const row = store.rows.get(Number(id));
    if (!row) continue;
    row.spark.set(spark, SPARK - spark.length);
    row.known = spark.length;
  }
  for (const row of store.rows.values()) {
    row.traffic = row.receive + row.transmit;
    row.smooth += SMOOTHING * (row.traffic - row.smooth);
    if (row.smooth < 1) row.smooth = 0;
    if (!whole) {
      row.spark.copyWithin(0, 1);
      row.spark[SPARK - 1] = row.traffic;
      row.known = Math.min(SPARK, row.known + 1);
    }
  }
  store.host = news.host;
  store.events = [...news.events.reverse(), ...store.events].slice(0, MOST_EVENTS);
  connection("live");
  tell(whole || news.rows.length || news.gone?.length ? "names" : "rates");
}

function enter(told) {
  const known = store.rows.get(told.id);
  const row = known ?? {
    receive: 0, transmit: 0, connections: null, traffic: 0, smooth: 0, known: 0, spark: new Float64Array(SPARK),
  };
  Object.assign(row, told);
  row.text = [told.name, told.state, told.network, told.address, told.address6, told.device, told.reason]
    .filter(Boolean).join("\n").toLowerCase();
  row.order = addressOrder(told.address);
  store.rows.set(row.id, row);
  store.keys.set(row.key, row);
}

function addressOrder(address) {
  if (!address) return Infinity;
  return address.split("/")[0].split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
}
