// An experiment's page, live: its events say what changed, and the server renders it.
import { carried } from "./charts.js";
import { asking, change, Log, progressed, refresh, unfinished, whileSeen } from "./live.js";
import { TrainingCharts } from "./training_charts.js";

const { experiment, trainings } = carried("carried");
const element = (id) => document.getElementById(id);
const charts = new TrainingCharts(trainings);
const log = new Log();
const names = new Map([...element("log-run").options].map((option) => [option.value, option.textContent]));
const states = new Map();
let source = null;

function follow() {
  source?.close();
  source = new EventSource(`/experiments/${experiment}/events`);
  const on = (kind, act) => source.addEventListener(kind, (event) => act(JSON.parse(event.data)));
  on("state", heardState);
  on("progress", progressed);
  on("metrics", heardMetrics);
  on("log", (piece) => log.heard(piece));
  on("cancelled", refresh);
  on("experiment", heardExperiment);
  on("end", () => {
    source.close();
    log.read();
    refresh();
  });
}

function heardState({ run, state, error }) {
  const before = states.get(run);
  states.set(run, state);
  if (before !== undefined && before !== state) {
    element("news").textContent = `${names.get(run) ?? run}: ${state}${error ? ` (${error.slice(0, 200)})` : ""}`;
  }
  if (before !== state) refresh();
}

function heardMetrics({ run, new: news }) {
  if (news?.epochs) charts.add(run, news.epochs);
  refresh();
}

function heardExperiment({ state, progress }) {
  element("whole").setAttribute("value", progress.toFixed(3));
  element("percent").textContent = `${Math.round(100 * progress)} %`;
  if (element("status").dataset.state !== state) refresh();
}

// Trying one run again tries again what only waited for it; so look anew after each.
async function retryAll() {
  const tried = new Set();
  for (;;) {
    const { runs } = await (await fetch(`/experiments/${experiment}`)).json();
    const next = runs.find((run) => ["failed", "cancelled"].includes(run.state) && !tried.has(run.id));
    if (!next) break;
    tried.add(next.id);
    if (!(await change("POST", `/runs/${next.id}/retry`))) break;
  }
  follow();
  refresh();
}

asking(async () => {
  if (await change("POST", `/experiments/${experiment}/cancel`)) refresh();
});
document.addEventListener("click", async (event) => {
  if (event.target.id === "retry") {
    event.target.disabled = true;
    await retryAll();
  } else if (event.target.id === "archive") {
    const restore = event.target.dataset.restore === "true" ? "?restore=true" : "";
    if (await change("DELETE", `/experiments/${experiment}${restore}`)) refresh();
  }
});
element("log-run").addEventListener("change", (event) => log.show(event.target.value));

document.addEventListener("refreshed", ({ detail }) => {
  for (const training of detail.trainings) charts.add(training.id, training.epochs);
});
whileSeen(follow, () => source?.close());

log.show(element("log-run").value);
if (unfinished()) follow();
