// Loss and validation accuracy by epoch, one line a run; epochs are added as they end.
import { draw, VARIANTS } from "./charts.js";

const MARKS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star"];

export class TrainingCharts {
  #trainings;
  #paints = null;

  constructor(trainings) {
    this.#trainings = trainings;
    this.paint();
  }

  // `epochs` may hold what is known already.
  add(run, epochs) {
    const training = this.#trainings.find((one) => one.id === run);
    if (!training) return;
    if (epochs.every((epoch) => training.epochs.some((old) => old.epoch === epoch.epoch))) return;
    const known = new Map(training.epochs.map((epoch) => [epoch.epoch, epoch]));
    for (const epoch of epochs) known.set(epoch.epoch, epoch);
    training.epochs = [...known.values()].sort((a, b) => a.epoch - b.epoch);
    this.paint();
  }

  paint() {
    if (!this.#trainings.some((training) => training.epochs.length)) return;
    document.getElementById("charts").hidden = false;
    this.#paints ??= [
      draw("loss", () => this.#chart("train_loss", "training loss", 1, { rangemode: "tozero" })),
      draw("accuracy", () => this.#chart("validation_accuracy", "validation accuracy %", 100, {})),
    ];
    for (const paint of this.#paints) paint();
  }

  #chart(field, title, scale, axis) {
    const many = this.#trainings.length > 12;
    const data = this.#trainings.map((training, number) => ({
      name: training.label,
      x: training.epochs.map((epoch) => epoch.epoch),
      y: training.epochs.map((epoch) => scale * epoch[field]),
      mode: "lines+markers",
      line: { color: VARIANTS[training.variant], width: 2, dash: training.kind === "branch" ? "dot" : "solid" },
      marker: { symbol: MARKS[number % MARKS.length], size: 7 },
    }));
    const last = Math.max(...this.#trainings.flatMap((training) => training.epochs.map((epoch) => epoch.epoch)));
    const layout = {
      title: { text: title, font: { size: 14 }, x: 0, xref: "paper" },
      xaxis: { title: { text: "epoch", standoff: 6 }, tickformat: "d", range: [0, last + 0.5], ...(last < 12 ? { dtick: 1 } : {}) },
      legend: { orientation: "h", y: -0.28, font: { size: 11 } },
      yaxis: axis,
      showlegend: !many,
    };
    return { data, layout };
  }
}
