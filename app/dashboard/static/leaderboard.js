// The leaderboard with a script: every column sorts, and the buttons wait for as many rows as they take.

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
  count(); // a browser that comes back may have kept its ticks

  // Text in natural order, numbers by the value behind the text.
  const key = (row, at) => row.cells[at].dataset.value ?? row.cells[at].textContent.trim();
  const numeric = (text) => text !== "" && !Number.isNaN(+text);
  const natural = new Intl.Collator("en", { numeric: true }).compare;
  const compare = (a, b) => (numeric(a) && numeric(b) ? +a - +b : natural(a, b));

  function sort(header, button) {
    const at = header.cellIndex;
    const down = header.getAttribute("aria-sort") === "descending" ? false : header.classList.contains("number");
    const turned = header.getAttribute("aria-sort") === "ascending" ? true : down;
    for (const other of table.tHead.rows[0].cells) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", turned ? "descending" : "ascending");
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => !row.classList.contains("divide"));
      const keyed = rows.map((row) => [key(row, at), row]);
      keyed.sort((a, b) => (turned ? compare(b[0], a[0]) : compare(a[0], b[0])));
      body.append(...keyed.map(([, row]) => row));
    }
    button.focus();
  }

  for (const header of table.querySelectorAll("th[data-sort]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent.trim();
    header.replaceChildren(button);
    button.addEventListener("click", () => sort(header, button));
  }
}
