// Accuracy against eps: lines with bands, dashed and hollow where a figure is an upper bound only.
import { carried, draw, token } from "./charts.js";

const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x"];
const LINEAR_SPAN = 40; // radii further apart than this factor stand on a logarithmic scale beyond the first
const CROWDED = 12; // lines: then the dots in the table beneath are the legend; on a narrow screen sooner

const { norm, title, chance, lines } = carried("curves-data");
const radii = new Map(lines.flatMap((line) => line.points.map((p) => [p.eps, p.text])).sort((a, b) => a[0] - b[0]));
const [smallest, largest] = [[...radii.keys()].find((eps) => eps > 0), Math.max(...radii.keys())];
const wide = largest > LINEAR_SPAN * smallest;
const scale = norm === "linf" ? 255 : 1;

// Where a radius stands on the axis; on a wide scale 0 has a place of its own.
const place = (eps) => (wide ? (eps > 0 ? 1 + Math.log10(eps / smallest) : 0) : scale * eps);
const percent = (share) => 100 * share;

// A variant has one colour; its further lines have paler ones.
function shadeOf(line) {
  const alike = lines.filter((other) => other.variant === line.variant);
  return mixed(token(line.variant), token("paper"), (0.5 * alike.indexOf(line)) / alike.length);
}

const channels = (hex) => {
  const full = hex.length === 4 ? [...hex.slice(1)].map((digit) => digit + digit).join("") : hex.slice(1);
  return [0, 2, 4].map((at) => parseInt(full.slice(at, at + 2), 16));
};

function mixed(hex, other, share) {
  const [from, to] = [channels(hex), channels(other)];
  return `rgb(${from.map((value, at) => Math.round(value + share * (to[at] - value))).join(",")})`;
}

const translucent = (rgb, alpha) => rgb.replace("rgb(", "rgba(").replace(")", `,${alpha})`);

function band(line, shade) {
  const there = line.points.map((p) => [place(p.eps), percent(p.high)]);
  const back = line.points.map((p) => [place(p.eps), percent(p.low)]).reverse();
  const outline = [...there, ...back];
  return {
    x: outline.map(([x]) => x), y: outline.map(([, y]) => y), fill: "toself", fillcolor: translucent(shade, 0.13),
    line: { width: 0 }, mode: "lines", hoverinfo: "skip", showlegend: false, legendgroup: line.label,
  };
}

function said(line, p) {
  const sd = p.sd === null ? "" : ` ± ${percent(p.sd).toFixed(1)}`;
  const interval = `95 %: ${percent(p.low).toFixed(1)} to ${percent(p.high).toFixed(1)}`;
  const bound = p.ok ? "" : "<br>upper bound only";
  return `<b>${line.label}</b>, eps ${p.text}<br>${percent(p.mean).toFixed(1)}${sd} % (${p.n} seeds)<br>${interval}${bound}`;
}

function curve(line, number, shade) {
  return {
    name: line.ok ? line.label : `${line.label} (upper bound only)`, legendgroup: line.label, mode: "lines+markers",
    x: line.points.map((p) => place(p.eps)), y: line.points.map((p) => percent(p.mean)),
    text: line.points.map((p) => said(line, p)), hovertemplate: "%{text}<extra></extra>", cliponaxis: false,
    line: { color: shade, width: 2, dash: line.ok ? "solid" : "dash" },
    marker: {
      size: 8, color: line.points.map((p) => (p.ok ? shade : token("paper"))), line: { color: shade, width: 2 },
      symbol: SYMBOLS[number % SYMBOLS.length],
    },
  };
}

function guessing() {
  const shown = chance === null ? [] : [chance];
  return {
    shapes: shown.map((y) => ({
      type: "line", xref: "paper", x0: 0, x1: 1, y0: percent(y), y1: percent(y),
      line: { color: token("quiet"), width: 1, dash: "dot" },
    })),
    annotations: shown.map((y) => ({
      xref: "paper", x: 1.005, y: percent(y), text: "chance", showarrow: false, xanchor: "left", yanchor: "middle",
      font: { color: token("quiet"), size: 12 },
    })),
  };
}

// Radii whose labels have room: the largest, and those far enough from the next.
function apart(ticks) {
  const room = (narrow() ? 0.09 : 0.045) * place(largest);
  const kept = [];
  for (const tick of ticks.reverse()) if (!kept.length || place(kept.at(-1)[0]) - place(tick[0]) >= room) kept.push(tick);
  return kept.reverse();
}

const narrow = () => document.getElementById("curves").clientWidth < 600;

function layout() {
  const unit = scale === 255 ? (narrow() ? ", in 255ths" : ", in 255ths of the pixel range") : "";
  const ticks = apart([...radii]);
  const short = (eps, text) => (eps === 0 ? "0" : scale === 255 ? `${+(255 * eps).toPrecision(3)}` : text);
  return {
    xaxis: {
      title: { text: `eps (${title} radius${unit})` },
      tickvals: ticks.map(([eps]) => place(eps)), ticktext: ticks.map(([eps, text]) => short(eps, text)),
      zeroline: false, range: [-0.02 * place(largest), 1.02 * place(largest)],
    },
    yaxis: { title: { text: "accuracy, per cent" }, range: [0, 101], dtick: 20, zeroline: false },
    legend: { orientation: "h", y: narrow() ? -0.42 : -0.22 }, showlegend: lines.length <= (narrow() ? 3 : CROWDED),
    margin: { l: 56, r: narrow() ? 52 : 60, t: 12, b: 48 }, hovermode: "closest", ...guessing(),
  };
}

draw("curves", () => {
  const shades = lines.map(shadeOf);
  for (const dot of document.querySelectorAll("[data-line]")) {
    const number = lines.findIndex((line) => line.label === dot.dataset.line);
    dot.style.color = number < 0 ? "transparent" : shades[number];
  }
  return {
    data: [...lines.map((l, i) => band(l, shades[i])), ...lines.map((l, i) => curve(l, i, shades[i]))],
    layout: layout(),
  };
});
