// A click on a heading sorts its table: numbers by their value, words as words, what is missing last.
"use strict";

function orderOf(row, column, numeric) {
  const cell = row.cells[column];
  if (!numeric) return cell.textContent.trim() || null;
  return "order" in cell.dataset ? Number(cell.dataset.order) : null;
}

function sortBy(table, column, header) {
  const numeric = header.dataset.numeric === "true";
  const current = header.getAttribute("aria-sort");
  const descending = current ? current === "ascending" : numeric;
  for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows, (row) => ({ row, order: orderOf(row, column, numeric) }));
  rows.sort((a, b) => {
    if (a.order === null || b.order === null) return (a.order === null) - (b.order === null);
    const difference = numeric ? a.order - b.order : a.order.localeCompare(b.order, "en", { numeric: true });
    return descending ? -difference : difference;
  });
  body.append(...rows.map(({ row }) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const header of table.tHead.querySelector(".headings").cells) {
    const button = header.querySelector("button");
    button.addEventListener("click", () => sortBy(table, header.cellIndex, header));
  }
}

const intervals = document.getElementById("intervals");
intervals?.addEventListener("click", () => {
  intervals.setAttribute("aria-pressed", String(intervals.getAttribute("aria-pressed") !== "true"));
});
