// An attack's parameters as fields, from the catalogue: name, default, limits or choices, meaning.
//
//   place.replaceChildren(...controlsOf(parameters));
//   body.parameters = given(place);   // without what is left at its default
import { make } from "./requests.js";

export const controlsOf = (parameters) => Object.entries(parameters).map(([name, one]) => field(name, one));

function field(name, parameter) {
  const id = `parameter-${name}`;
  const described = { id, "data-parameter": name, "data-pointer": `/parameters/${name}`, "data-default": JSON.stringify(parameter.default),
    "aria-describedby": `${id}-hint ${id}-fault` };
  return make("div", { class: "field" }, make("label", { for: id }, name.replaceAll("_", " ")), control(parameter, described),
    make("small", { class: "quiet", id: `${id}-hint` }, [parameter.meaning, limits(parameter)].filter(Boolean).join("; ")),
    make("span", { class: "bad fault", id: `${id}-fault`, hidden: true }));
}

function control(parameter, described) {
  const options = typeof parameter.default === "boolean" ? ["true", "false"] : parameter.choices;
  if (!options.length) return make("input", { ...described, inputmode: "decimal", placeholder: `${parameter.default}`, autocomplete: "off" });
  return make("select", described, ...options.map((text) => make("option", { selected: text === `${parameter.default}` }, text)));
}

function limits({ default: usual, minimum, maximum }) {
  if (typeof usual !== "number" || minimum === null) return "";
  return `${minimum.toLocaleString("en")} to ${maximum.toLocaleString("en")}`;
}

export function given(place) {
  const found = {};
  for (const control of place.querySelectorAll("[data-parameter]")) {
    const usual = JSON.parse(control.dataset.default);
    const value = read(control.value.trim(), usual);
    if (value !== usual) found[control.dataset.parameter] = value;
  }
  return found;
}

// What does not look right is sent as typed: the API says why.
function read(text, usual) {
  if (text === "") return usual;
  if (typeof usual === "boolean") return text === "true";
  return typeof usual === "number" && Number.isFinite(Number(text)) ? Number(text) : text;
}
