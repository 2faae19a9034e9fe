// The form of a new experiment: reads its controls into the API's body, asks what that would cost, submits it.
import { carried } from "./charts.js";
import { fill, pretty, read } from "./form_body.js";

const WAIT = 350;
const { given, keys, recipes, variants } = carried("carried");
const form = document.getElementById("form");
const element = (id) => document.getElementById(id);
let asked = null;
let timer = null;
let sent = { text: "", key: "" };

const text = () => JSON.stringify(read(form));

function duration(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// Something was changed: shows the body at once, and soon its cost.
function changed() {
  const option = element("dataset").selectedOptions[0];
  element("dataset-hint").textContent = option.dataset.note;
  const norm = element("evaluation-norm").value;
  element("evaluation-eps").placeholder = (JSON.parse(option.dataset.eps)[norm] ?? []).join(", ");
  for (const part of form.querySelectorAll("[data-how]")) part.hidden = part.dataset.how !== form.elements.how.value;
  for (const attack of form.querySelectorAll(".attack")) {
    attack.querySelector(".grid").hidden = !attack.querySelector("[data-attack]").checked;
  }
  element("body").textContent = pretty(read(form));
  showUsual();
  element("cost").setAttribute("aria-busy", "true");
  clearTimeout(timer);
  timer = setTimeout(price, WAIT);
}

// What a field that is left open will be, where the recipe decides.
function showUsual() {
  const pretrained = !["", "none"].includes(element("training-weights").value.trim());
  const usual = recipes[element("training-recipe").value || (pretrained ? "study" : "default")];
  for (const [name, value] of Object.entries({ ...usual, freeze_depth: pretrained ? 3 : 0 })) {
    element(`training-${name}`).placeholder = value;
  }
}

async function price() {
  asked?.abort();
  asked = new AbortController();
  const { signal } = asked;
  try {
    const response = await post("/experiments/plan", text(), { signal });
    const answer = await response.json();
    if (signal.aborted) return;
    showFaults(response.ok ? [] : answer.errors ?? [{ pointer: "", detail: answer.detail }]);
    showCost(response.ok ? answer : null);
  } catch (error) {
    if (error.name !== "AbortError") showFaults([{ pointer: "", detail: "The service does not answer." }]);
  }
}

function showCost(plan) {
  element("cost").setAttribute("aria-busy", "false");
  element("time-text").textContent = element("time-reason").textContent = "";
  element("plan-rows").replaceChildren(...(plan?.runs ?? []).map(row));
  if (!plan) {
    element("runs-text").textContent = "Not known until the form is right.";
    return;
  }
  const { run_count: count, new_runs: fresh, reused_runs: reused } = plan;
  element("runs-text").textContent = `${count} run${count === 1 ? "" : "s"}: ${fresh} new, ${reused} reused.`;
  if (plan.estimated_seconds !== null) {
    const [most, least] = [plan.estimated_seconds, plan.shortest_seconds].map(duration);
    element("time-text").textContent = fresh
      ? `About ${most} on one worker${most === least ? "" : `, ${least} with workers enough`}.`
      : "Nothing is left to do.";
    const bases = new Set(plan.runs.map((run) => run.basis).filter(Boolean));
    element("time-reason").textContent = bases.size ? "From what comparable runs took here; run by run below." : "";
    return;
  }
  const known = plan.runs.reduce((sum, run) => sum + (run.estimated_seconds ?? 0), 0);
  element("time-text").textContent = known ? `At least ${duration(known)} on one worker; in all not known.` : "Time not known.";
  const reasons = plan.reason.split("; ");
  const more = reasons.length > 2 ? `, and ${reasons.length - 2} more sorts of runs; run by run below` : "";
  element("time-reason").textContent = `Because ${reasons.slice(0, 2).join("; ")}${more}.`;
}

function row(run) {
  const line = document.createElement("tr");
  const [what, time] = [document.createElement("td"), document.createElement("td")];
  const branch = run.branch_seed === null ? "" : `/${run.branch_seed}`;
  const rounded = run.precision === "float32" ? "" : ` ${run.precision}`;
  const which = run.kind === "shard" ? `, ${run.settings}` : "";
  what.textContent = `${run.kind} ${run.architecture} ${variants[run.variant]} ${run.epochs}${rounded}, seed ${run.seed}${branch}${which}`;
  const note = document.createElement("small");
  note.className = "quiet";
  note.textContent = run.reused ? "" : (run.basis ?? run.reason);
  what.append(document.createElement("br"), note);
  time.className = "number";
  time.textContent = run.reused ? `reused, ${run.state}` : run.estimated_seconds === null ? "—" : duration(run.estimated_seconds);
  line.append(what, time);
  return line;
}

// Each fault at the control it is about; what is about none of them above the button.
function showFaults(faults) {
  for (const place of form.querySelectorAll(".fault")) Object.assign(place, { hidden: true, textContent: "" });
  for (const control of form.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
  const elsewhere = faults.filter((fault) => !showAtControl(fault)).map((fault) => fault.detail);
  element("problem").textContent = elsewhere.join("; ");
  element("problem").hidden = !elsewhere.length;
}

function showAtControl({ pointer, detail }) {
  const [control, place] = placeOf(pointer);
  if (!control) return false;
  place.textContent = place.textContent ? `${place.textContent}; ${detail}` : detail;
  place.hidden = false;
  control.setAttribute("aria-invalid", "true");
  for (let outer = control.closest("details"); outer; outer = outer.parentElement.closest("details")) outer.open = true;
  return true;
}

function placeOf(pointer) {
  const [, number] = /^\/evaluation\/attacks\/(\d+)/.exec(pointer) ?? [];
  const attack = number && [...form.querySelectorAll("[data-attack]:checked")][Number(number)];
  if (attack) return [attack, attack.closest(".attack").querySelector(".fault")];
  for (let at = pointer; at; at = at.slice(0, at.lastIndexOf("/"))) {
    const control = form.querySelector(`[data-pointer="${CSS.escape(at)}"]`);
    if (control) return [control, element(`${control.id}-fault`)];
  }
  return [null, null];
}

const post = (path, body, more = {}) =>
  fetch(path, { method: "POST", body, ...more, headers: { "content-type": "application/json", ...more.headers } });

// The same body is submitted once, however often the button is pressed.
async function submit() {
  const body = text();
  if (sent.text !== body) sent = { text: body, key: [...crypto.getRandomValues(new Uint32Array(4))].join("-") };
  element("submit").disabled = true;
  try {
    const response = await post("/experiments", body, { headers: { "Idempotency-Key": sent.key } });
    const answer = await response.json();
    if (response.ok) {
      location.assign(`/ui/experiments/${answer.id}`);
      return;
    }
    showFaults(answer.errors ?? [{ pointer: "", detail: answer.detail }]);
    form.querySelector("[aria-invalid]")?.focus();
  } catch {
    showFaults([{ pointer: "", detail: "The service does not answer; try again: it is submitted once." }]);
  }
  element("submit").disabled = false;
}

function curl() {
  const key = keys ? ` -H "Authorization: Bearer $SPIKEPROOF_API_KEY"` : "";
  const body = JSON.stringify(read(form)).replaceAll("'", "'\\''");
  return `curl -s ${location.origin}/experiments${key} -H 'content-type: application/json' -d '${body}'`;
}

// Without https from elsewhere a browser has no clipboard for us: then the command is shown, to be copied by hand.
async function copy() {
  try {
    await navigator.clipboard.writeText(curl());
    element("copied").textContent = "copied";
  } catch {
    element("body").textContent = curl();
    getSelection().selectAllChildren(element("body"));
    element("copied").textContent = "marked above, to copy";
  }
}

form.addEventListener("input", changed);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
element("copy").addEventListener("click", copy);
element("template-note").textContent = fill(form, given);
changed();
