// Between controls and the body of POST /experiments. A control says its place (data-pointer), what it is read as
// (data-kind) and what need not be said (data-default). What does not look right is sent as typed: the API says why.

const list = (text) => text.split(/[\s,]+/).filter(Boolean);
const number = (text) => (text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : text);
const range = (text) => {
  const [, first, last] = /^(\d+)-(\d+)$/.exec(text) ?? [];
  if (first === undefined || last - first > 1000) return [number(text)];
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, step) => Number(first) + step);
};
const json = (text) => {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
};

const READ = {
  text: (text) => text,
  int: number,
  number,
  either: number,
  bool: (text) => text === "true",
  ints: (text) => list(text).flatMap(range),
  radii: (text) => text.split(",").map((one) => one.trim()).filter(Boolean),
  names: list,
  json,
};

function valueOf(control) {
  const { kind } = control.dataset;
  if (kind === "flag") return control.checked;
  if (kind === "choices") return [...control.querySelectorAll("input:checked")].map((box) => box.value);
  if (kind === "attacks") return [...control.querySelectorAll("[data-attack]:checked")].map(attackOf);
  return control.value.trim() === "" ? undefined : READ[kind](control.value);
}

function attackOf(box) {
  const parameters = {};
  for (const control of box.closest(".attack").querySelectorAll("[data-parameter]")) {
    const value = said(control);
    if (value !== undefined) parameters[control.dataset.parameter] = value;
  }
  return Object.keys(parameters).length ? { name: box.dataset.attack, parameters } : { name: box.dataset.attack };
}

// Undefined where it is the default.
function said(control) {
  const value = valueOf(control);
  return isUsual(control, value) ? undefined : value;
}

function isUsual(control, value) {
  const usual = control.dataset.default;
  return usual !== undefined && JSON.stringify(value) === JSON.stringify(JSON.parse(usual));
}

const steps = (control) => control.dataset.pointer.slice(1).split("/");

// The body that the form stands for, without what is as usual.
export function read(form) {
  const body = {};
  for (const control of form.querySelectorAll("[data-pointer]")) {
    if (control.closest("[data-how][hidden]")) continue;
    const value = said(control);
    if (value === undefined) continue;
    const path = steps(control);
    const last = path.pop();
    path.reduce((inner, step) => (inner[step] ??= {}), body)[last] = value;
  }
  return body;
}

// As people read it: an entry a line, lists of plain values in one.
export function pretty(value, indent = "") {
  const inner = `${indent}  `;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  if (Array.isArray(value)) {
    const plain = value.every((one) => one === null || typeof one !== "object");
    if (plain) return `[${value.map((one) => JSON.stringify(one)).join(", ")}]`;
    return `[\n${value.map((one) => inner + pretty(one, inner)).join(",\n")}\n${indent}]`;
  }
  const lines = Object.entries(value).map(([name, one]) => `${inner}${JSON.stringify(name)}: ${pretty(one, inner)}`);
  return lines.length ? `{\n${lines.join(",\n")}\n${indent}}` : "{}";
}

// The inverse: what a body says into the controls. Returns what they cannot say.
export function fill(form, body) {
  for (const control of form.querySelectorAll("[data-pointer]")) {
    const value = steps(control).reduce((inner, step) => inner?.[step], body);
    if (value === undefined || value === null) continue;
    set(control, value);
  }
  const attacks = body.evaluation?.attacks?.map((use) => use.name) ?? [];
  if (attacks.length) form.elements.how.value = "attacks";
  const shown = [...form.querySelectorAll("[data-attack]:checked")].map((box) => box.dataset.attack);
  if (shown.join() === attacks.join()) return "";
  return `The template attacks with ${attacks.join(", ")}, in this order; the form takes each once, as listed.`;
}

function set(control, value) {
  const { kind } = control.dataset;
  if (kind === "flag") control.checked = value;
  else if (kind === "choices") for (const box of control.querySelectorAll("input")) box.checked = value.includes(box.value);
  else if (kind === "attacks") value.forEach((use) => setAttack(control, use));
  else if (kind === "json") control.value = value.length ? JSON.stringify(value) : "";
  else if (!isUsual(control, value) || control.tagName === "SELECT") {
    control.value = Array.isArray(value) ? value.join(", ") : value;
  }
}

function setAttack(control, { name, parameters }) {
  const box = control.querySelector(`[data-attack="${name}"]`);
  if (!box) return;
  box.checked = true;
  for (const [parameter, value] of Object.entries(parameters ?? {})) {
    const field = box.closest(".attack").querySelector(`[data-parameter="${parameter}"]`);
    if (field) field.value = String(value);
  }
}
