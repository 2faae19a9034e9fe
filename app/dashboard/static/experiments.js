// The list of experiments, kept up to date while one of them is under way and somebody looks.
import { refresh } from "./live.js";

const EVERY = 2000;

setInterval(() => {
  if (!document.hidden && document.querySelector("[data-unfinished]")) refresh();
}, EVERY);
