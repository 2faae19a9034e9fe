// The playground: predicts when an image or a checkpoint is chosen, attacks on request, shows both side by side.
import { carried } from "./charts.js";
import { ask, asJson, follow, inState, make } from "./requests.js";
import { bars } from "./bars.js";
import { clearFaults, showFaults } from "./faults.js";
import { controlsOf, given } from "./attack_parameters.js";

const setup = carried("setup");
const form = document.getElementById("play");
const at = (id) => document.getElementById(id);
const SHOWN = 5; // classes with a bar
const network = () => setup.checkpoints[form.checkpoint.value];
const dataset = () => setup.datasets[network().dataset];
const hasTestImages = () => dataset() && String(dataset().image_shape) === String(network().shape);
const typed = (text) => (text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : text); // the API says what is wrong
const seed = () => typed(form.seed.value);
let turn = 0; // of the newest question: answers to older ones are dropped

function begin() {
  const { chosen } = setup;
  if (chosen.test_image !== null) form.test_image.value = chosen.test_image;
  form.checkpoint.addEventListener("change", () => chooseCheckpoint());
  form.attack.addEventListener("change", chooseAttack);
  form.norm.addEventListener("change", chooseNorm);
  form.image.addEventListener("change", () => predict());
  form.test_image.addEventListener("change", () => { form.image.value = ""; predict(); });
  form.test_image.addEventListener("keydown", (event) => { // shows that image; the button attacks it
    if (event.key !== "Enter") return;
    event.preventDefault();
    form.image.value = "";
    predict();
  });
  at("another").addEventListener("click", another);
  form.addEventListener("submit", attack);
  takeDrops(at("drop"));
  chooseAttack();
  chooseCheckpoint(chosen.eps);
}

function chooseCheckpoint(eps) {
  const { classes } = network();
  at("about").href = `/ui/checkpoints/${form.checkpoint.value}`;
  const keep = make("option", { value: "" }, "as known, else as answered");
  form.label.replaceChildren(keep, ...classes.map((name) => make("option", { value: name }, name)));
  at("from-test").hidden = !hasTestImages();
  if (hasTestImages()) form.test_image.max = dataset().test_size - 1;
  if (Number(form.test_image.value) > Number(form.test_image.max)) form.test_image.value = 0;
  chooseNorm(eps);
  predict();
}

function chooseAttack() {
  const { norms, title, parameters } = setup.attacks[form.attack.value];
  at("attack-title").textContent = title;
  at("parameters").replaceChildren(...controlsOf(parameters));
  for (const option of form.norm.options) option.disabled = !norms.includes(option.value);
  if (!norms.includes(form.norm.value)) {
    form.norm.value = norms[0];
    chooseNorm();
  }
}

function chooseNorm(eps) {
  const known = dataset()?.eps[form.norm.value] ?? [];
  at("radii").replaceChildren(...known.map((value) => make("option", { value })));
  const usual = dataset()?.headline_eps[form.norm.value] ?? (form.norm.value === "linf" ? "8/255" : "0.5");
  form.eps.value = typeof eps === "string" ? eps : usual;
}

function another() {
  form.image.value = "";
  form.test_image.value = Math.floor(Math.random() * dataset().test_size);
  predict();
}

function takeDrops(area) {
  for (const kind of ["dragenter", "dragover"])
    area.addEventListener(kind, (event) => { event.preventDefault(); area.classList.add("over"); });
  for (const kind of ["dragleave", "drop"]) area.addEventListener(kind, () => area.classList.remove("over"));
  area.addEventListener("drop", (event) => {
    event.preventDefault();
    if (!event.dataTransfer.files.length) return;
    form.image.files = event.dataTransfer.files;
    predict();
  });
}

// The image as a file, and where it can be seen; null where there is none to take.
async function image() {
  if (form.image.files.length) return { file: form.image.files[0], seen: URL.createObjectURL(form.image.files[0]) };
  if (!hasTestImages()) return null;
  const address = `/datasets/${encodeURIComponent(network().dataset)}/images/${encodeURIComponent(form.test_image.value)}`;
  const about = await ask(address).catch((error) => {
    const detail = `test images have the numbers 0 to ${dataset().test_size - 1}`;
    throw [404, 422].includes(error.status) ? Object.assign(error, { faults: [{ pointer: "/test_image", detail }] }) : error;
  });
  const found = await fetch(about.image);
  if (!found.ok) throw new Error(`the image cannot be had: the service answered ${found.status}`);
  return { file: await found.blob(), seen: about.image, about };
}

async function predict() {
  const mine = ++turn;
  clear();
  try {
    const taken = await image();
    if (mine !== turn) return;
    if (!taken) return say("Choose an image.");
    show("original", taken.seen);
    const body = new FormData();
    body.append("images", taken.file, "image.png");
    const answer = await ask(`/checkpoints/${form.checkpoint.value}/predict?draws=100&top=${SHOWN}&seed=${encodeURIComponent(seed())}`, { method: "POST", body });
    if (mine !== turn) return;
    const { top, draws } = answer.predictions[0];
    at("before").replaceChildren(bars(top, { caption: `Answer${draws > 1 ? ` over ${draws} draws` : ""}`, truth: taken.about?.label.class }));
    say(taken.about ? `Test image ${taken.about.index}: its class is ${taken.about.label.class}.` : "");
  } catch (error) {
    if (mine === turn) refused(error);
  }
}

async function attack(event) {
  event.preventDefault();
  const mine = ++turn;
  const button = form.querySelector("button.primary");
  clear("change", "attacked", "after", "facts");
  button.disabled = true;
  try {
    const run = await submit();
    if (mine !== turn) return;
    const done = await watch(run, mine);
    if (done) result(done);
  } catch (error) {
    if (mine === turn) refused(error);
  } finally {
    button.disabled = false;
    at("stop").hidden = true;
  }
}

async function submit() {
  const wanted = { attack: form.attack.value, norm: form.norm.value, eps: form.eps.value, seed: seed() };
  const parameters = given(at("parameters"));
  if (form.label.value) wanted.label = form.label.value;
  const address = `/checkpoints/${form.checkpoint.value}/attack`;
  if (!form.image.files.length) return ask(address, asJson({ ...wanted, parameters, test_image: typed(form.test_image.value) }));
  const body = new FormData();
  for (const [name, value] of Object.entries({ ...wanted, parameters: JSON.stringify(parameters) })) body.append(name, value);
  body.append("image", form.image.files[0], "image.png");
  return ask(address, { method: "POST", body });
}

async function watch(run, mine) {
  const bar = make("progress", { max: 1, value: 0, "aria-label": "The attack" });
  const words = make("span", {}, "queued: a worker takes it when it is free");
  at("status").replaceChildren(make("p", {}, words, " ", make("a", { href: `/ui/runs/${run.id}` }, "run")), bar);
  const stop = at("stop");
  stop.hidden = false;
  stop.onclick = () => ask(`/runs/${run.id}/cancel`, asJson({})).catch((error) => say(error.message, "bad"));
  const done = await follow(run.id, (now) => {
    bar.value = now.progress;
    if (now.state !== "queued") words.textContent = inState(now);
  }, () => mine !== turn);
  if (done && done.state !== "succeeded") throw new Error(`The attack ${done.state}${done.error ? `: ${done.error}` : "."}`);
  return done;
}

function result(run) {
  const { metrics: found, spec } = run;
  const named = (side) => found[side].answer.class;
  show("original", `/runs/${run.id}/original.png`);
  show("change", `/runs/${run.id}/perturbation.png`);
  show("attacked", `/runs/${run.id}/adversarial.png`);
  const truth = found.label.class;
  const known = found.label_from !== "answer"; // nobody said what an image of one's own shows
  const drawn = found.draws > 1 ? ` over ${found.draws} fresh draws` : "";
  for (const side of ["before", "after"])
    at(side).replaceChildren(bars(likely(found, side), { caption: `Answer ${side}${drawn}`, truth, known }));
  at("change-caption").textContent = `Perturbation, × ${found.magnified.toPrecision(3)}`;
  at("facts").replaceChildren(facts(found, spec, run, known));
  if (known && named("before") !== truth) say(`It said ${named("before")} where ${truth} is true, without any attack.`, "warn");
  else if (found.fooled) say(`Fooled: ${known ? named("before") : `the answer ${truth}`} became ${named("after")}.`, "bad");
  else say(`It stands: still ${named("after")} at eps ${found.eps_text}. A stronger attack may do more.`, "good");
}

// The same classes on both sides, those likely in either answer; on each the likeliest first.
function likely(found, side) {
  const top = (of) => [...found[of].classes].sort((a, b) => b.probability - a.probability).slice(0, SHOWN - 1);
  const wanted = new Set([...top("before"), ...top("after")].map((one) => one.index).slice(0, 2 * SHOWN));
  return found[side].classes.filter((one) => wanted.has(one.index)).sort((a, b) => b.probability - a.probability);
}

function facts(found, spec, run, known) {
  const rows = {
    "attack": spec.attack, "norm, eps": `${spec.norm}, ${found.eps_text}`,
    "linf × 255": (255 * found.distance.linf).toFixed(2), "L2": found.distance.l2.toFixed(3),
    "SSIM": found.distance.ssim === null ? "–" : found.distance.ssim.toFixed(3),
    [known ? "right before" : "answered so before"]: share(found, "before"),
    [known ? "right after" : "answered so after"]: share(found, "after"),
    "passes": `${found.queries} forward, ${found.gradients} back`,
  };
  const list = make("dl", { class: "facts" });
  for (const [name, value] of Object.entries(rows)) list.append(make("dt", {}, name), make("dd", {}, value));
  const files = make("p", {}, make("a", { href: `/runs/${run.id}/adversarial.npz`, download: true }, "exact values (.npz)"), " · ", make("a", { href: `/runs/${run.id}/adversarial.png`, download: true }, "PNG"));
  return make("div", {}, list, files);
}

function share(found, side) {
  const right = found[side].correct_share;
  if (found.draws === 1) return right ? "yes" : "no";
  return `${Math.round(100 * right)} % of ${found.draws} draws`;
}

function show(id, address) {
  at(id).onerror = () => { at(id).hidden = true; }; // what is no image gets words, not a broken one
  at(id).src = address;
  at(id).hidden = false;
}

function clear(...ids) {
  clearFaults(form);
  for (const id of ids.length ? ids : ["before", "after", "facts", "change", "attacked"]) {
    if (id === "change") at("change-caption").textContent = "Perturbation, magnified";
    if (at(id).tagName === "IMG") at(id).hidden = true;
    else at(id).replaceChildren();
  }
}

function refused(error) {
  const faults = error.faults ?? [];
  const left = showFaults(form, faults);
  const elsewhere = left.map(({ pointer, detail }) => `${pointer.slice(1) || "the request"}: ${detail}`).join("; ");
  say(faults.length > left.length ? elsewhere || "What is marked above cannot be done." : error.message, "bad");
}

function say(text, kind = "quiet") {
  at("status").replaceChildren(make("p", { class: kind }, text));
}

if (form) begin();
