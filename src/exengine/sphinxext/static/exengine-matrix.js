/* Tables that compare backends: sorting, filtering, and finding the backends that meet given needs.

   This script works on every `table.exengine-matrix`, which has a row for each capability or promise and a
   column for each backend. Without the script, the tables are complete but cannot be sorted or filtered. */

(function () {
  "use strict";

  const BEST = ["yes", "kept", "not required"];
  const WORST = ["required", "not promised", "not run", "broken", "no", "none", "–", ""];

  /** Return the text of a cell without its leading mark. */
  function valueOf(cell) {
    return cell.textContent.replace(/[✓✗]/g, "").trim().replace(/\s+/g, " ");
  }

  /** Return the rank of a value in an order that starts with the best value. */
  function rankOf(value) {
    if (BEST.includes(value)) return 0;
    const worse = WORST.indexOf(value);
    return worse < 0 ? 1 : 2 + worse;
  }

  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name in element && typeof value !== "string") element[name] = value;
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  /** Return the rows and columns of a table. */
  function readTable(table) {
    const heads = Array.from(table.tHead.rows[0].cells);
    const rows = Array.from(table.tBodies[0].rows).map((row, place) => {
      const cells = Array.from(row.cells);
      const values = cells.map(valueOf);
      const choices = values.slice(1).every((value) => BEST.includes(value) || WORST.includes(value));
      return { row, cells, values, place, choices, box: null };
    });
    return { table, heads, rows, order: heads.map((_, place) => place) };
  }

  function sortRows(matrix, column, direction) {
    const rows = matrix.rows.slice();
    if (direction !== "none") {
      const sign = direction === "ascending" ? 1 : -1;
      rows.sort((one, other) => {
        const compared =
          column === 0
            ? one.values[0].localeCompare(other.values[0], undefined, { numeric: true })
            : rankOf(one.values[column]) - rankOf(other.values[column]) ||
              (rankOf(one.values[column]) === 1 ? one.values[column].localeCompare(other.values[column]) : 0);
        return sign * compared || one.place - other.place;
      });
    }
    matrix.table.tBodies[0].append(...rows.map((entry) => entry.row));
    matrix.heads.forEach((head, place) => {
      head.setAttribute("aria-sort", place === column ? direction : "none");
    });
  }

  function addSortButtons(matrix) {
    const turns = { none: "ascending", ascending: "descending", descending: "none" };
    matrix.heads.forEach((head, column) => {
      const name = head.textContent.trim();
      const button = make("button", {
        type: "button",
        class: "exengine-sort",
        "aria-label": `Sort by ${name}`,
        title: `Sort by ${name}`,
      });
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        sortRows(matrix, column, turns[head.getAttribute("aria-sort")]);
      });
      (head.querySelector("p") || head).append(" ", button);
    });
  }

  function addNeedBoxes(matrix, update) {
    for (const entry of matrix.rows) {
      if (!entry.choices) continue;
      const name = entry.cells[0].querySelector("p, code") || entry.cells[0];
      // A row of this kind is a limit, which a backend is better without.
      const limit = entry.values.slice(1).some((value) => value.endsWith("required"));
      entry.box = make("input", {
        type: "checkbox",
        class: "exengine-need",
        "aria-label": `Only backends ${limit ? "without" : "with"} ${name.textContent.trim()}`,
        title: limit ? "Only backends that do not require it" : "Only backends that have it",
      });
      entry.box.addEventListener("change", update);
      name.prepend(entry.box, " ");
    }
  }

  /** Arrange the columns of all tables in the given order, with the first column fixed. */
  function orderColumns(matrices, how) {
    for (const matrix of matrices) {
      for (const cells of [matrix.heads, ...matrix.rows.map((entry) => entry.cells)]) {
        cells[0].after(...how.map((column) => cells[column]));
      }
    }
  }

  function start() {
    const tables = Array.from(document.querySelectorAll("table.exengine-matrix"));
    if (!tables.length) return;
    const matrices = tables.map(readTable);
    const backends = matrices[0].heads.slice(1).map((head) => head.textContent.trim());
    const columns = backends.map((_, place) => place + 1);

    const text = make("input", { type: "search", id: "exengine-find", autocomplete: "off" });
    const name = make("input", { type: "search", id: "exengine-backend", autocomplete: "off" });
    const differ = make("input", { type: "checkbox", id: "exengine-differ" });
    const order = make(
      "select",
      { id: "exengine-order" },
      make("option", { value: "name" }, "by name"),
      make("option", { value: "most" }, "most first"),
    );
    const reset = make("button", { type: "button", class: "exengine-reset" }, "Show all");
    const status = make("p", { class: "exengine-status", role: "status", "aria-live": "polite" });
    let chosen = null; // the names that the pickers have chosen; null: all

    function update() {
      const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
      const wanted = name.value.toLowerCase().trim();
      const everything = matrices.flatMap((matrix) => matrix.rows);
      const needed = everything.filter((entry) => entry.box && entry.box.checked);
      const shown = columns.filter(
        (column) =>
          backends[column - 1].toLowerCase().includes(wanted) &&
          (!chosen || chosen.includes(backends[column - 1])) &&
          needed.every((entry) => BEST.includes(entry.values[column])),
      );
      let rows = 0;
      let all = 0;
      for (const matrix of matrices) {
        for (const cells of [matrix.heads, ...matrix.rows.map((entry) => entry.cells)]) {
          columns.forEach((column) => (cells[column].hidden = !shown.includes(column)));
        }
        for (const entry of matrix.rows) {
          const found = words.every((word) => entry.values.join(" ").toLowerCase().includes(word));
          const same = new Set(shown.map((column) => entry.values[column])).size < 2;
          entry.row.hidden = !found || (differ.checked && same);
          rows += entry.row.hidden ? 0 : 1;
          all += 1;
        }
      }
      status.textContent = `The tables show ${shown.length} of ${backends.length} backends, ${rows} of ${all} rows.`;
    }

    function reorder() {
      const score = (column) =>
        matrices.reduce((sum, m) => sum + m.rows.filter((e) => BEST.includes(e.values[column])).length, 0);
      const sorted = columns.slice();
      if (order.value === "most") sorted.sort((one, other) => score(other) - score(one) || one - other);
      orderColumns(matrices, sorted);
    }

    reset.addEventListener("click", () => {
      text.value = name.value = "";
      differ.checked = false;
      order.value = "name";
      for (const matrix of matrices) {
        matrix.rows.forEach((entry) => entry.box && (entry.box.checked = false));
        sortRows(matrix, 0, "none");
      }
      reorder();
      update();
    });
    text.addEventListener("input", update);
    name.addEventListener("input", update);
    differ.addEventListener("change", update);
    order.addEventListener("change", reorder);
    document.addEventListener("exengine-choice", (event) => {
      chosen = event.detail;
      update();
    });

    const label = (control, words) => make("label", { for: control.id }, words, " ", control);
    const tools = make(
      "form",
      { class: "exengine-tools", role: "search", "aria-label": "Filter the comparison" },
      label(text, "Rows with"),
      label(name, "Backends named"),
      label(order, "Backends"),
      make("label", { for: differ.id, class: "exengine-check" }, differ, " only differences"),
      reset,
    );
    tools.addEventListener("submit", (event) => event.preventDefault());
    matrices.forEach((matrix) => {
      addNeedBoxes(matrix, update);
      addSortButtons(matrix);
    });
    const words = "Tick the capabilities that you need. Only the backends that have them remain.";
    const hint = make("p", { class: "exengine-hint" }, words);
    const section = tables[0].closest("section");
    section.before(tools, hint, status);
    update();
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
