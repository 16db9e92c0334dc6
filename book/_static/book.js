// What the pages do beyond the theme: long tables sort by a column, and what scrolls can be reached with the keyboard.

const LONG_TABLE = 8; // rows, above which a table sorts

// "1,234.5 ± 0.2 px" is 1234.5; a text without a number in front is NaN.
function leadingNumber(text) {
  return parseFloat(text.trim().replace("\u2212", "-").replace(/^\+/, "").replace(/,(?=\d{3})/g, ""));
}

function sortRows(table, column, ascending) {
  const text = (row) => row.cells[column].textContent.trim();
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const given = rows.map(text).filter((value) => value && !/^(nan|-|\u2013)$/i.test(value));
  const numeric = given.every((value) => !Number.isNaN(leadingNumber(value)));
  const key = numeric ? (row) => leadingNumber(text(row)) : text;
  const isMissing = (row) => (numeric ? Number.isNaN(key(row)) : !key(row));
  const compare = (a, b) => (numeric ? key(a) - key(b) : key(a).localeCompare(key(b), undefined, { numeric: true }));
  rows.sort((a, b) => isMissing(a) - isMissing(b) || (isMissing(a) ? 0 : compare(a, b) * (ascending ? 1 : -1)));
  body.append(...rows);
}

// Every head becomes a button; `aria-sort` tells by which column, and in which direction, the table is sorted.
function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.title = "Sort by this column";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sortRows(table, column, ascending);
    });
  });
}

// One head to a column and one row to a thing: not a table of a few things side by side, whose rows have heads.
function isPlain(table) {
  const spans = [...table.querySelectorAll("th, td")].some((cell) => cell.colSpan > 1 || cell.rowSpan > 1);
  const heads = table.tHead?.rows.length === 1 ? [...table.tHead.rows[0].cells] : [];
  const listed = table.tBodies.length === 1 && !table.tBodies[0].querySelector("th");
  return !spans && listed && heads.length > 0 && heads.every((head) => head.textContent.trim());
}

// A box with something beyond its edge takes the focus, so that arrow keys scroll it.
function reachByKeyboard(box) {
  if (box.scrollWidth > box.clientWidth + 1) {
    box.tabIndex = 0;
    box.classList.add("scrolls");
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", box.querySelector("table") ? "table, scrolls sideways" : "scrolls sideways");
  }
}

document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll(".bd-article table")) {
    const rows = table.tBodies[0]?.rows.length ?? 0;
    table.classList.toggle("long", rows > LONG_TABLE);
    if (rows > LONG_TABLE && isPlain(table)) makeSortable(table);
  }
  // The arrow beside a page that has pages below it is a picture without a name.
  for (const page of document.querySelectorAll(".bd-links li.has-children")) {
    page.querySelector("summary")?.setAttribute("aria-label", `pages below ${page.querySelector("a").textContent}`);
  }
  // Sphinx sets the parameters of a long signature as a list of definitions without terms.
  document.querySelectorAll("dt.sig dl").forEach((list) => list.setAttribute("role", "presentation"));
  // Sphinx calls the bibliography a list, whose entries are none.
  document.querySelectorAll(".citation-list, .footnote-list").forEach((list) => list.removeAttribute("role"));
});
window.addEventListener("load", async () => {
  await window.MathJax?.startup?.promise; // formulas have their widths then
  document.querySelectorAll(".cell_output, .cell_output .output, .pst-scrollable-table-container, div.math").forEach(reachByKeyboard);
});

// Paper is white: the dark theme's light text would vanish on it.
window.addEventListener("beforeprint", () => {
  const root = document.documentElement;
  const theme = root.dataset.theme;
  root.dataset.theme = "light";
  window.addEventListener("afterprint", () => (root.dataset.theme = theme), { once: true });
});
