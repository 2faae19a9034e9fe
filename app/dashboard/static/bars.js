// Probabilities of classes as a table with bars: mean, and a whisker of one standard deviation over draws. `known` says
// whether `truth` is the image's class; else it is what the network answered.
import { make } from "./requests.js";

export function bars(classes, { caption, truth, known = true }) {
  const rows = classes.map((one) => {
    const right = one.class === truth;
    const name = make("th", { scope: "row" }, one.class, right ? make("span", { class: "quiet" }, known ? " true" : " answered before") : null);
    const sd = one.sd === null ? "" : ` ± ${(100 * one.sd).toFixed(1)}`;
    const number = make("td", { class: "number" }, `${(100 * one.probability).toFixed(1)}${sd}`);
    return make("tr", {}, name, make("td", { class: "wide" }, bar(one, right)), number);
  });
  const head = make("tr", {}, make("th", { scope: "col" }, "class"), make("td"), make("th", { scope: "col", class: "number" }, "%"));
  return make("table", {}, make("caption", {}, caption), make("thead", {}, head), make("tbody", {}, ...rows));
}

function bar(one, right) {
  const track = make("div", { class: "bar", "aria-hidden": "true" });
  const fill = make("div", { class: right ? "fill true" : "fill" });
  fill.style.width = `${100 * one.probability}%`;
  track.append(fill);
  if (one.sd) {
    const [low, high] = [Math.max(0, one.probability - one.sd), Math.min(1, one.probability + one.sd)];
    const whisker = make("div", { class: "whisker" });
    whisker.style.left = `${100 * low}%`;
    whisker.style.width = `${100 * (high - low)}%`;
    track.append(whisker);
  }
  return track;
}
