// The button that has a checkpoint's figures computed again.
import { ask, asJson, follow, inState, make } from "./requests.js";

const section = document.getElementById("verify");
const button = section.querySelector("[data-verify]");
const status = section.querySelector("[data-status]");

if (button) {
  button.hidden = false;
  button.addEventListener("click", verify);
}

async function verify() {
  button.disabled = true;
  try {
    const run = await ask(`/checkpoints/${section.dataset.checkpoint}/verify`, asJson({}));
    const bar = make("progress", { max: 1, value: 0, "aria-label": "Verification" });
    const words = make("span", {}, "queued");
    status.replaceChildren(make("p", {}, words, " ", make("a", { href: `/ui/runs/${run.id}` }, "run")), bar);
    const done = await follow(run.id, (now) => {
      bar.value = now.progress;
      words.textContent = inState(now);
    });
    status.replaceChildren(make("p", { class: done.state === "succeeded" ? (done.metrics.agrees ? "good" : "bad") : "bad" }, outcome(done)));
  } catch (error) {
    status.replaceChildren(make("p", { class: "bad" }, error.message));
  }
  button.disabled = false;
}

function outcome(run) {
  if (run.state !== "succeeded") return `The verification ${run.state}: ${run.error ?? "nothing was compared"}`;
  return `${run.metrics.agrees ? "✓" : "✗"} ${run.metrics.text}`;
}
