// What all charts share: plotly.js in the page's own colours, redrawn when these change.
//
//   import { draw, token, VARIANTS } from "./charts.js";
//   draw("curves", () => ({ data: [...], layout: {...} }));

// Okabe and Ito's colours, as in the static pictures; the black of the palette follows the page's ink.
export const PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];
export const VARIANTS = { default: PALETTE[0], lif: PALETTE[1], paralif: PALETTE[2] };

export const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// The value that a page carries in <script type="application/json" id="...">.
export const carried = (id) => JSON.parse(document.getElementById(id).textContent);

const CONFIG = { responsive: true, displaylogo: false, showLink: false, sendData: false, plotlyServerURL: "" };

function dressed(layout) {
  const axis = { gridcolor: token("line"), linecolor: token("line"), zerolinecolor: token("line"), automargin: true };
  const axes = Object.fromEntries(
    ["xaxis", "yaxis", ...Object.keys(layout).filter((key) => /^[xy]axis\d+$/.test(key))].map((key) => [
      key,
      { ...axis, ...layout[key] },
    ]),
  );
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 13, color: token("ink") },
    margin: { l: 56, r: 16, t: 32, b: 48 },
    hoverlabel: { bgcolor: token("raised"), bordercolor: token("line"), font: { color: token("ink") } },
    legend: { orientation: "h", y: -0.25 },
    ...layout,
    ...axes,
  };
}

// Draws into the element `id`; `make()` gives plotly's data and layout, and is asked again when the theme changes.
export function draw(id, make) {
  const element = document.getElementById(id);
  const paint = () => {
    const { data, layout } = make();
    return Plotly.react(element, data, dressed(layout), CONFIG);
  };
  document.addEventListener("themechange", paint);
  paint();
  return paint;
}
