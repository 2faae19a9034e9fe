// Accuracy against eps: lines with bands, dashed and hollow where a figure is an upper bound only.
import { carried, draw, PALETTE, token } from "./charts.js";

const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x"];
const LINEAR_SPAN = 40; // radii further apart than this factor stand on a logarithmic scale beyond the first
const CROWDED = 9; // lines: then a legend beneath pushes the chart away

const { norm, title, chance, lines } = carried("curves-data");
const radii = new Map(lines.flatMap((line) => line.points.map((p) => [p.eps, p.text])).sort((a, b) => a[0] - b[0]));
const [smallest, largest] = [[...radii.keys()].find((eps) => eps > 0), Math.max(...radii.keys())];
const wide = largest > LINEAR_SPAN * smallest;
const scale = norm === "linf" ? 255 : 1;

// Where a radius stands on the axis; on a wide scale 0 has a place of its own.
const place = (eps) => (wide ? (eps > 0 ? 1 + Math.log10(eps / smallest) : 0) : scale * eps);
const percent = (share) => 100 * share;
const alone = new Set(lines.map((line) => line.variant)).size === lines.length;
const colour = (line, number) => (alone ? token(line.variant) : PALETTE[number % PALETTE.length]);

function translucent(hex, alpha) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return `rgba(${r},${g},${b},${alpha})`;
}

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
      xref: "paper", x: 1, y: percent(y), text: "chance", showarrow: false, xanchor: "right", yanchor: "bottom",
      font: { color: token("quiet"), size: 12 },
    })),
  };
}

function layout() {
  const unit = scale === 255 ? ", in 255ths of the pixel range" : "";
  const ticks = [...radii];
  const short = (eps, text) => (eps === 0 ? "0" : scale === 255 ? `${+(255 * eps).toPrecision(3)}` : text);
  return {
    xaxis: {
      title: { text: `eps (${title} radius${unit})` },
      tickvals: ticks.map(([eps]) => place(eps)), ticktext: ticks.map(([eps, text]) => short(eps, text)),
      zeroline: false, range: [-0.02 * place(largest), 1.02 * place(largest)],
    },
    yaxis: { title: { text: "accuracy, per cent" }, range: [0, 101], dtick: 20, zeroline: false },
    legend: lines.length > CROWDED ? { orientation: "v" } : { orientation: "h", y: -0.22 },
    hovermode: "closest", ...guessing(),
  };
}

draw("curves", () => {
  const shades = lines.map(colour);
  return {
    data: [...lines.map((l, i) => band(l, shades[i])), ...lines.map((l, i) => curve(l, i, shades[i]))],
    layout: layout(),
  };
});
