// The leaderboard with a script: every column sorts, and the buttons wait for as many rows as they take. The order is
// in the address, as #by=COLUMN, or #by=-COLUMN from the largest: who follows a link sees the same.

const form = document.getElementById("board");
if (form) {
  const table = form.querySelector("table.board");
  const said = document.getElementById("ticked");

  function count() {
    const ticked = form.querySelectorAll("input[name=rows]:checked").length;
    for (const button of form.querySelectorAll("button[data-exactly]")) button.disabled = ticked !== +button.dataset.exactly;
    for (const button of form.querySelectorAll("button[data-least]")) button.disabled = ticked < +button.dataset.least;
    said.textContent = ticked ? `${ticked} row${ticked === 1 ? "" : "s"} ticked` : "Tick rows to compare or draw them.";
  }
  form.addEventListener("change", count);
  window.addEventListener("pageshow", count); // a browser that comes back puts its ticks back, later than this runs
  count();

  // Text in natural order, numbers by the value behind the text.
  const key = (row, at) => row.cells[at].dataset.value ?? row.cells[at].textContent.trim();
  const numeric = (text) => text !== "" && !Number.isNaN(+text);
  const natural = new Intl.Collator("en", { numeric: true }).compare;
  const compare = (a, b) => (numeric(a) && numeric(b) ? +a - +b : natural(a, b));

  function turn(header) {
    const now = header.getAttribute("aria-sort");
    const turned = now === "ascending" || (now !== "descending" && header.classList.contains("number"));
    sort(header, turned);
    history.replaceState(null, "", `#by=${turned ? "-" : ""}${encodeURIComponent(header.dataset.sort)}`);
  }

  for (const body of table.tBodies) [...body.rows].forEach((row, at) => { row.dataset.ranked = at; });
  const ranked = (a, b) => a.dataset.ranked - b.dataset.ranked; // of equals, as a new page has them

  function sort(header, turned) {
    const at = header.cellIndex;
    for (const other of table.tHead.rows[0].cells) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", turned ? "descending" : "ascending");
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => !row.classList.contains("divide"));
      const keyed = rows.map((row) => [key(row, at), row]);
      keyed.sort((a, b) => (turned ? compare(b[0], a[0]) : compare(a[0], b[0])) || ranked(a[1], b[1]));
      body.append(...keyed.map(([, row]) => row));
    }
  }

  function sortAsLinked() {
    const [, down, name] = /^#by=(-?)(.+)$/.exec(location.hash) ?? [];
    const header = [...table.querySelectorAll("th[data-sort]")].find((one) => encodeURIComponent(one.dataset.sort) === name);
    if (header) sort(header, down === "-");
  }

  for (const header of table.querySelectorAll("th[data-sort]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent.trim();
    header.replaceChildren(button);
    button.addEventListener("click", () => { turn(header); button.focus(); });
  }
  sortAsLinked();
  window.addEventListener("hashchange", sortAsLinked);
}
