// Polls /v1/status and shows it. Text is set with textContent only: names come from users.
"use strict";

const POLL_MS = 1000;
const byId = (id) => document.getElementById(id);
const count = (value) => Math.round(value).toLocaleString("en");

function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return `${value.toFixed(unit ? 1 : 0)} ${units[unit]}`;
}

function duration(ms) {
  for (const [unit, size] of [["d", 86400000], ["h", 3600000], ["min", 60000], ["s", 1000]]) {
    if (ms >= size) return `${(ms / size).toFixed(1)} ${unit}`;
  }
  return `${ms} ms`;
}

const date = (text) => (text ? text.replace("T", " ").replace(/\.\d+Z$/, "").replace("Z", "") : "none yet");

function element(tag, text, ...children) {
  const made = document.createElement(tag);
  if (text !== null) made.textContent = text;
  made.append(...children);
  return made;
}

function table(id, headings, rows) {
  const head = element("tr", null, ...headings.map((heading) => element("th", heading)));
  const body = rows.map((row) => element("tr", null, ...row.map((cell) => element("td", cell))));
  byId(id).replaceChildren(...(rows.length ? [head, ...body] : []));
}

function facts(status) {
  const simulated = status.clock === "event";
  const shown = [
    [simulated ? "Simulated time" : "Epoch", date(status.date), `${status.clock} clock`],
    ["Events", count(status.events), `${count(status.events_per_second)} a second`],
    ["Open steps", `${status.queue.depth} of ${status.queue.limit}`, `${status.workers} worker${status.workers === 1 ? "" : "s"}`],
    ["Lookups", count(status.lookups.count), status.lookups.p99_ms === null ? "" : `99 % within ${status.lookups.p99_ms} ms`],
    ["Checkpoint", status.checkpoint.age_ms === null ? "none" : `${duration(status.checkpoint.age_ms)} ago`, bytes(status.checkpoint.bytes)],
    ["Memory", status.resident_bytes === null ? "?" : bytes(status.resident_bytes), "resident"],
  ];
  byId("facts").replaceChildren(...shown.map(([name, value, note]) =>
    element("div", null, element("dt", name), element("strong", value), element("small", note))));
}

function show(status) {
  const state = byId("state");
  document.title = `${status.pipeline} · Freshet`;
  byId("pipeline").textContent = status.pipeline;
  state.className = status.failure ? "bad" : status.ready ? "good" : "";
  state.textContent = status.failure ? `failed: ${status.failure}`
    : !status.ready ? `not ready: ${status.reasons.join("; ")}`
    : status.finished ? "finished: every source has ended, every view is complete" : "running";
  facts(status);
  table("views", ["View", "Complete up to", "Behind", "Rows", "Errors"],
    status.views.map((view) => [view.name, date(view.date), duration(view.lag_ms), count(view.rows), count(view.errors)]));
  byId("loop").hidden = status.models.length === 0;
  table("models", ["Model", "Live version", "Versions", "Rows scored", "Failed"],
    status.models.map((model) => [model.name, model.live === null ? "none yet" : String(model.live), count(model.versions), count(model.rows), count(model.errors)]));
  table("jobs", ["Job", "Runs", "Promoted", "State"],
    status.jobs.map((job) => [job.name, count(job.runs), count(job.promoted), job.running === null ? "waiting" : `run of ${date(job.running)}`]));
  table("sources", ["Source", "Rows", "Behind", "Late rows", "Dead letters", "State"],
    status.sources.map((source) => [source.name, count(source.rows), duration(source.lag_ms), count(source.late_rows),
      count(source.dead_letters.reduce((sum, letter) => sum + letter.count, 0)), source.ended ? "ended" : "reading"]));
  table("operators", ["Operator", "Rows in state", "Bytes"],
    status.operators.map((operator) => [operator.name, count(operator.rows), bytes(operator.bytes)]));
  table("sinks", ["Sink", "Changes written", "Waiting"],
    status.sinks.map((sink) => [sink.name, count(sink.rows), `${sink.queue_depth} of ${sink.queue_limit}`]));
}

async function poll() {
  try {
    const answer = await fetch("/v1/status", { cache: "no-store" });
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    show(await answer.json());
  } catch (error) {
    byId("state").className = "bad";
    byId("state").textContent = `no connection: ${error.message}`;
  }
  setTimeout(poll, POLL_MS);
}

poll();
