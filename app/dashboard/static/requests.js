// Calls of the API from a page: errors in words, and runs followed to their end.
//
//   const run = await ask(`/checkpoints/${id}/attack`, { method: "POST", body: form });
//   const done = await follow(run.id, (now) => progress.value = now.progress);

const PAUSE = 400; // ms between looks at a run that works
const ENDED = new Set(["succeeded", "failed", "cancelled"]);

// A refusal in the words of the problem document; `faults` are those of single fields: {pointer, detail}; `status` is HTTP's.
export class Refused extends Error {
  constructor(answer, status) {
    super(inWords(answer, status));
    this.faults = answer.errors ?? [];
    this.status = status;
  }
}

// The answer's JSON. Throws Refused.
export async function ask(address, options = {}) {
  const response = await fetch(address, { headers: { Accept: "application/json" }, ...options });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(answer, response.status);
  return answer;
}

export const asJson = (body) => ({
  method: "POST",
  headers: { "Content-Type": "application/json", Accept: "application/json" },
  body: JSON.stringify(body),
});

function inWords(problem, status) {
  const faults = (problem.errors ?? []).map((fault) => `${fault.pointer.slice(1) || "the request"}: ${fault.detail}`);
  return faults.length ? faults.join("; ") : (problem.detail ?? `the service answered ${status}`);
}

// Looks at a run until it has ended; `told` hears of each look. `stopped()` true: nobody waits any more.
export async function follow(id, told, stopped = () => false) {
  for (;;) {
    const run = await ask(`/runs/${id}`);
    if (stopped()) return null;
    told(run);
    if (ENDED.has(run.state)) return run;
    await new Promise((wake) => setTimeout(wake, PAUSE));
  }
}

export const inState = (run) =>
  run.state === "running" ? `${run.phase ?? "running"}, ${Math.round(100 * run.progress)} %` : run.state;

// An element with text and children; no text is ever read as HTML.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}
