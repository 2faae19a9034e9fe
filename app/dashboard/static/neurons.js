// Neurons of a spiking decoder: a raster of spikes, and membrane potentials with the threshold.
import { carried, draw, PALETTE, token } from "./charts.js";
import { ask, asJson, make } from "./requests.js";

const setup = carried("setup");
const form = document.getElementById("watch");
const at = (id) => document.getElementById(id);
const TRACES = 6; // potentials that are drawn from the start; the others wait in the legend
const ROW = 18; // pixels of the raster a neuron
let turn = 0;

const network = () => setup.checkpoints[form.checkpoint.value];
const dataset = () => setup.datasets[network().dataset];
const named = (one) => (one.class === null ? `neuron ${one.neuron}` : `${one.neuron}: ${one.class}`);

async function watch(event) {
  event?.preventDefault();
  const mine = ++turn;
  at("status").replaceChildren(make("p", { class: "quiet" }, "Asking the network …"));
  try {
    const seen = await question();
    if (mine !== turn) return;
    at("status").replaceChildren();
    show(seen);
  } catch (error) {
    if (mine === turn) at("status").replaceChildren(make("p", { class: "bad" }, error.message));
  }
}

async function question() {
  const address = `/checkpoints/${form.checkpoint.value}/neurons`;
  const wanted = { seed: Number(form.seed.value), count: Number(form.count.value) };
  const file = form.image.files[0];
  if (!file) {
    const index = Number(form.test_image.value);
    const seen = await ask(address, asJson({ ...wanted, test_image: index }));
    at("seen").src = `/datasets/${encodeURIComponent(network().dataset)}/images/${index}/image.png`;
    return seen;
  }
  const body = new FormData();
  for (const [name, value] of Object.entries(wanted)) body.append(name, value);
  body.append("image", file, "image.png");
  const seen = await ask(address, { method: "POST", body });
  at("seen").src = URL.createObjectURL(file);
  return seen;
}

function show(seen) {
  at("shown").hidden = false;
  at("explained").textContent = explained(seen);
  const share = (100 * seen.answer.probability).toFixed(1);
  at("answer").textContent = `This draw answers ${seen.answer.class} (${share} %). Neurons fire ${seen.rates.neurons.toFixed(3)} times a step, their inputs ${seen.rates.input.toFixed(3)}; shown are ${seen.neurons.length} of ${seen.neuron_count} neurons.`;
  at("saturated").textContent = saturation(seen);
  at("saturated").hidden = !saturation(seen);
  at("figures").replaceChildren(...seen.neurons.map(row));
  at("raster").style.minHeight = "0";
  draw("raster", () => raster(seen));
  draw("membrane", () => membranes(seen));
}

// A neuron that fires always, or never, says the same of every image: its spikes are a constant.
function saturation({ saturated, neuron_count: all, timesteps }) {
  const { always, never } = saturated;
  if (always + never < all / 2) return "";
  const told = [[always, `fire at every one of the ${timesteps} steps`], [never, "never fire"]].filter(([count]) => count);
  return `${told.map(([count, what]) => `${count} of ${all} neurons ${what}`).join(", and ")}: on this image the spikes of these carry nothing from step to step.`;
}

function explained({ variant, rule, timesteps }) {
  const shows = `For ${timesteps} steps the encoder's features arrive as random spikes, and each neuron sums its input current into a membrane potential that leaks.`;
  const fires = {
    threshold: `It fires where the potential passes the dashed line, at ${rule.line?.toFixed(3)}${rule.resets ? ", and loses as much one step later, which makes the teeth of the saw" : "; nothing is reset, so a strong input keeps it firing"}.`,
    rise: `It fires where its level rises by more than ${rule.threshold?.toFixed(3)} in one step; nothing is reset.`,
    chance: "There is no threshold: at each step a spike is drawn, the likelier the higher the potential, with an even chance at the dashed line.",
  }[rule.kind];
  const reads = variant === "paralif" ? "Each neuron speaks for one class, and its rate over time, times a gain, is that class's logit." : "The rates over time of all hidden neurons go through a last linear map to the logits.";
  return `${shows} ${fires} ${reads}`;
}

function row(one) {
  const fired = one.spikes.reduce((sum, spike) => sum + spike, 0);
  const mean = one.current.reduce((sum, value) => sum + value, 0) / one.current.length;
  const train = one.spikes.map((spike) => (spike ? "|" : "·")).join("");
  return make("tr", {}, make("th", { scope: "row" }, named(one)), make("td", { class: "number" }, `${fired}`),
    make("td", { class: "number" }, mean.toFixed(3)), make("td", { class: "number" }, Math.max(...one.potential).toFixed(3)),
    make("td", { class: "mono" }, train));
}

function raster(seen) {
  const names = seen.neurons.map(named);
  const x = [], y = [];
  for (const one of seen.neurons) one.spikes.forEach((spike, t) => { if (spike) { x.push(t + 1); y.push(named(one)); } });
  return {
    data: [{ x, y, mode: "markers", type: "scatter", hovertemplate: "%{y}, step %{x}<extra></extra>",
      marker: { symbol: "line-ns", size: 11, line: { width: 2.5, color: token(seen.variant) } } }],
    layout: {
      height: 90 + ROW * names.length, showlegend: false,
      xaxis: { title: { text: "time step" }, range: [0.5, seen.timesteps + 0.5], zeroline: false },
      yaxis: { type: "category", categoryarray: names, categoryorder: "array", range: [names.length - 0.5, -0.5] },
    },
  };
}

function membranes(seen) {
  const steps = Array.from({ length: seen.timesteps }, (_, t) => t + 1);
  const busiest = [...seen.neurons].sort((a, b) => sum(b.spikes) - sum(a.spikes)).slice(0, TRACES);
  const data = seen.neurons.map((one, k) => ({
    x: steps, y: one.potential, name: named(one), mode: "lines+markers", line: { width: 1.8, color: PALETTE[k % PALETTE.length], dash: ["solid", "dot", "dash"][Math.floor(k / PALETTE.length) % 3] },
    marker: { size: one.spikes.map((spike) => (spike ? 9 : 0.1)), symbol: "line-ns-open", line: { width: 2.5 } },
    visible: busiest.includes(one) ? true : "legendonly",
  }));
  const { line } = seen.rule;
  const shapes = line === null ? [] : [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: line, y1: line, line: { dash: "dash", width: 1.5, color: token("ink") } }];
  const text = seen.rule.kind === "chance" ? "even chance" : "threshold";
  const annotations = line === null ? [] : [{ xref: "paper", x: 1, y: line, text, showarrow: false, xanchor: "right", yanchor: "bottom", font: { size: 12 } }];
  return { data, layout: { height: 440, shapes, annotations, xaxis: { title: { text: "time step" }, range: [0.5, seen.timesteps + 0.5], zeroline: false }, yaxis: { title: { text: "potential" } } } };
}

const sum = (values) => values.reduce((total, value) => total + value, 0);

function bounds() {
  form.test_image.disabled = !dataset();
  if (dataset()) form.test_image.max = dataset().test_size - 1;
  if (Number(form.test_image.value) > Number(form.test_image.max)) form.test_image.value = 0;
}

if (form) {
  form.addEventListener("submit", watch);
  form.checkpoint.addEventListener("change", () => { bounds(); watch(); });
  form.test_image.addEventListener("change", () => { form.image.value = ""; watch(); });
  form.seed.addEventListener("change", () => watch());
  form.image.addEventListener("change", () => watch());
  bounds();
  if (dataset()) window.addEventListener("load", () => watch());
}
