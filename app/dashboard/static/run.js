// A run's page, live: by the events of an experiment that has it, else by looking every other second.
import { carried } from "./charts.js";
import { asking, change, Log, progressed, refresh, unfinished, whileSeen } from "./live.js";
import { TrainingCharts } from "./training_charts.js";

const EVERY = 2000;
const { run, experiment, trainings } = carried("carried");
const charts = trainings.length ? new TrainingCharts(trainings) : null;
const log = new Log();
let source = null;

function follow() {
  source?.close();
  if (!experiment) return;
  source = new EventSource(`/experiments/${experiment}/events`);
  const on = (kind, act) =>
    source.addEventListener(kind, (event) => {
      const told = JSON.parse(event.data);
      if (told.run === run) act(told);
    });
  on("state", ({ state }) => {
    document.getElementById("news").textContent = `now ${state}`;
    refresh();
    log.read();
  });
  on("progress", (told) => {
    progressed(told);
    document.getElementById("percent").textContent = `${Math.round(100 * told.progress)} %`;
  });
  on("metrics", ({ new: news }) => {
    if (news?.epochs) charts?.add(run, news.epochs);
    refresh();
  });
  on("log", (piece) => log.heard(piece));
  source.addEventListener("end", () => {
    source.close();
    source = null;
    log.read();
    refresh();
  });
}

setInterval(() => {
  if (source || document.hidden || !unfinished()) return;
  refresh();
  log.read();
}, EVERY);

asking(async () => {
  if (await change("POST", `/runs/${run}/cancel`)) refresh();
});
document.addEventListener("click", async (event) => {
  const shown = event.target.closest("[data-gallery]");
  if (event.target.id === "retry") {
    event.target.disabled = true;
    if (await change("POST", `/runs/${run}/retry`)) follow();
    refresh();
  } else if (shown) {
    event.preventDefault();
    document.getElementById("picture").src = shown.href;
    document.getElementById("picture-link").href = shown.href;
    document.getElementById("picture").alt = `Clean images, their worst adversarial images within ${shown.textContent}, and the change`;
  }
});

document.addEventListener("refreshed", ({ detail }) => {
  for (const training of detail.trainings) charts?.add(training.id, training.epochs);
});
whileSeen(follow, () => source?.close());

log.show(run);
if (unfinished()) follow();
