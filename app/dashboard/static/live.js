// What pages that change by themselves share: parts rendered anew by the server, calls that change something, the log.
//
//   refresh();                                   // soon; elements with data-live are exchanged where they differ
//   await change("POST", "/runs/ID/retry");      // a refusal is shown in #problem

const SOON = 250;
const element = (id) => document.getElementById(id);
let waiting = null;
let again = false;

// The page as the server would render it now, at most a few times a second.
export function refresh() {
  if (waiting) {
    again = true;
    return waiting;
  }
  waiting = new Promise((resolve) => setTimeout(resolve, SOON)).then(exchange).catch(() => {}).finally(() => {
    waiting = null;
    if (again) {
      again = false;
      refresh();
    }
  });
  return waiting;
}

async function exchange() {
  const response = await fetch(location.href, { headers: { accept: "text/html" } });
  if (!response.ok) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const fresh of page.querySelectorAll("[data-live]")) {
    const old = element(fresh.id);
    if (old && old.outerHTML !== fresh.outerHTML) replace(old, fresh);
  }
  const carried = page.getElementById("carried");
  if (carried) document.dispatchEvent(new CustomEvent("refreshed", { detail: JSON.parse(carried.textContent) }));
}

// Whoever has the focus inside keeps it: the same link, or the button of the same place.
function replace(old, fresh) {
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  const places = [...old.querySelectorAll("a, button")];
  const place = places.indexOf(focused);
  old.replaceWith(document.adoptNode(fresh));
  if (focused) (fresh.querySelectorAll("a, button")[place] ?? fresh.querySelector("a, button"))?.focus();
}

// A page that nobody sees holds no connection open: a browser has few for one service. Back again, it catches up.
export function whileSeen(follow, stop) {
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) stop();
    else if (unfinished()) {
      follow();
      refresh();
    }
  });
}

export const unfinished = () => element("status").dataset.unfinished === "true";

// Calls the API; true where it did as asked.
export async function change(method, path, { ignore = [] } = {}) {
  const problem = element("problem");
  problem.hidden = true;
  try {
    const response = await fetch(path, { method });
    if (response.ok || ignore.includes(response.status)) return true;
    problem.textContent = (await response.json()).detail;
  } catch {
    problem.textContent = "The service does not answer.";
  }
  problem.hidden = false;
  return false;
}

// Buttons with data-dialog ask first.
export function asking(yes) {
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-dialog]");
    if (!button) return;
    const dialog = element(button.dataset.dialog);
    dialog.returnValue = "no";
    dialog.addEventListener("close", () => dialog.returnValue === "yes" && yes(), { once: true });
    dialog.showModal();
  });
}

export function progressed({ run, progress, phase }) {
  for (const bar of document.querySelectorAll(`[data-progress="${run}"]`)) bar.setAttribute("value", progress.toFixed(3));
  for (const text of document.querySelectorAll(`[data-phase="${run}"]`)) text.textContent = phase ?? "";
}

// The log of one run at a time, from its last lines on.
export class Log {
  #run = null;
  #next = 0;
  #text = element("log");
  #reading = Promise.resolve();

  show(run) {
    this.#run = run;
    this.#next = null;
    this.#text.textContent = "";
    element("log-whole").href = `/runs/${run}/log`;
    return this.read();
  }

  // One read after another: pieces must not cross.
  read() {
    this.#reading = this.#reading.then(() => this.#read()).catch(() => {});
    return this.#reading;
  }

  heard({ run }) {
    if (run === this.#run) this.read();
  }

  async #read() {
    const run = this.#run;
    const from = this.#next === null ? "tail=400" : `offset=${this.#next}`;
    const response = await fetch(`/runs/${run}/log?${from}`);
    if (!response.ok || run !== this.#run) return;
    const piece = await response.text();
    this.#next = Number(response.headers.get("X-Log-Next"));
    if (piece) this.#text.append(piece);
    if (element("log-follow").checked) this.#text.scrollTop = this.#text.scrollHeight;
  }
}
