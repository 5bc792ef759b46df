"use strict";
// The page is whole without this: it adds sorting, a filter, the way from a line to its rows, and a choice of colours.
(() => {
  const THEMES = ["auto", "light", "dark"];
  const KEY = "nowag-bench theme"; // files may share one storage
  const byId = (id) => document.getElementById(id);
  const counted = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

  const stored = {
    // Storage may be forbidden, as it is for files in some browsers: the choice then lasts as long as the page.
    read: () => { try { return localStorage.getItem(KEY); } catch { return null; } },
    write: (theme) => { try { localStorage.setItem(KEY, theme); } catch { /* not remembered */ } },
  };

  function wear(theme) {
    document.documentElement.dataset.theme = theme;
  }

  function startTheme() {
    const button = byId("theme");
    const say = () => { button.textContent = `Theme: ${document.documentElement.dataset.theme}`; };
    button.addEventListener("click", () => {
      const worn = THEMES.indexOf(document.documentElement.dataset.theme);
      wear(THEMES[(worn + 1) % THEMES.length]);
      stored.write(document.documentElement.dataset.theme);
      say();
    });
    say();
  }

  // ---- sorting

  /** What a line is sorted by: a number, a text, or null where it has nothing there, which comes last. */
  function keyOf(line, place, numeric) {
    const cell = line.cells[place];
    if (!numeric) return cell?.textContent.trim() || null;
    const value = parseFloat(cell?.dataset.value);
    return Number.isNaN(value) ? null : value;
  }

  function compare(a, b) {
    return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
  }

  function sort(table, lines, place, numeric, direction) {
    const keyed = lines.map((line) => [keyOf(line, place, numeric), line]);
    const sign = direction === "descending" ? -1 : 1;
    if (direction) {
      keyed.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b)));
    }
    table.tBodies[0].append(...keyed.map(([, line]) => line));
  }

  function startSorting(table) {
    const lines = [...table.tBodies[0].rows]; // as they came
    const headers = [...[...table.tHead.rows].at(-1).cells]; // of single columns; those of groups stand above
    headers.forEach((header, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => {
        const next = { none: "ascending", ascending: "descending" }[header.getAttribute("aria-sort") ?? "none"];
        for (const each of headers) each.removeAttribute("aria-sort");
        if (next) header.setAttribute("aria-sort", next);
        sort(table, lines, place, header.classList.contains("number"), next);
      });
    });
  }

  // ---- from a line to its rows, and the filter, which holds for lines and rows alike

  const rows = () => [...document.querySelectorAll("details.row")];
  let chosen = null; // ids of the rows of one line, or null for all
  let origin = null; // the link that was followed

  /** Finds a word in a text; a number only as a whole: 2 is in "2 bits" and "2:4", not in "wikitext2" or "2.25". */
  function finder(word) {
    const plain = word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    const before = /^\d/.test(word) ? "(?<![\\p{L}\\d.])" : "";
    const after = /\d$/.test(word) ? "(?!\\.?\\d)" : "";
    return new RegExp(before + plain + after, "iu");
  }

  function filter() {
    const words = byId("filter").value.split(/\s+/).filter(Boolean);
    const finders = words.map(finder);
    const holds = (text) => finders.every((each) => each.test(text));
    const every = { shown: 0, all: 0 };
    for (const table of document.querySelectorAll("table.results")) {
      const lines = [...table.tBodies[0].rows];
      for (const line of lines) line.hidden = !holds(line.dataset.text);
      const shown = lines.filter((line) => !line.hidden).length;
      every.shown += shown;
      every.all += lines.length;
      const box = table.closest(".table");
      box.hidden = words.length && !shown;
      box.querySelector(".count").textContent = words.length ? `${shown} of ${counted(lines.length, "line")}` : "";
    }
    for (const row of rows()) {
      row.hidden = chosen ? !chosen.has(row.id) : !holds(row.querySelector("summary").textContent);
    }
    for (const note of document.querySelectorAll(".none")) {
      note.hidden = note.parentElement.querySelector(".table:not([hidden])") !== null;
    }
    for (const note of document.querySelectorAll(".unfiltered")) note.hidden = !words.length;
    byId("count").textContent = words.length ? `${every.shown} of ${counted(every.all, "line")}` : "";
    byId("count").dataset.words = words.join(" "); // for paper
  }

  function choose(ids, link) {
    chosen = ids;
    origin = link ?? origin;
    document.querySelector(".chosen").hidden = !ids;
    byId("chosen").textContent = ids ? `${counted(ids.size, "row")} of ${nameOf(link)}` : "";
    filter();
  }

  /** What tells a line from the others: its first label, and the rest, which narrow screens show below it. */
  function nameOf(link) {
    return [link.textContent, link.parentElement.dataset.rest].filter(Boolean).join(" ");
  }

  /** Open what the address names, and go there; of the several rows of one line to their list. */
  function reveal() {
    const target = byId(location.hash.slice(1));
    if (!(target instanceof HTMLDetailsElement)) return;
    if (target.hidden) choose(null);
    target.hidden = false;
    const listed = chosen?.has(target.id);
    const first = listed && chosen.size > 1 ? target.parentElement : target;
    for (let each = first; each; each = each.parentElement.closest("details")) each.open = true;
    (listed ? document.querySelector(".chosen") : target).scrollIntoView();
    target.querySelector("summary").focus({ preventScroll: true });
  }

  function startLine(line, table) {
    const labels = [...line.querySelectorAll("th, td:not(.number)")];
    const groups = table.tHead.querySelectorAll(".group");
    line.dataset.text = [table.id, ...[...groups, ...labels].map((cell) => cell.textContent)].join(" ");
    const ids = (line.dataset.rows ?? "").split(" ").filter((id) => byId(`row-${id}`)).map((id) => `row-${id}`);
    if (!ids.length) return;
    const link = document.createElement("a");
    link.href = `#${ids[0]}`;
    link.title = `Show ${counted(ids.length, "row")}`;
    link.append(...labels[0].childNodes);
    labels[0].append(link);
    link.addEventListener("click", () => {
      choose(new Set(ids), link);
      if (location.hash === link.hash) reveal(); // no change of address, no event
    });
  }

  function startTable(table) {
    const box = table.closest(".table");
    const count = document.createElement("span");
    count.className = "count";
    (box.querySelector("summary") ?? box).append(count);
    for (const line of table.tBodies[0].rows) startLine(line, table);
    startSorting(table);
  }

  function start() {
    startTheme();
    document.querySelectorAll("table.results").forEach(startTable);
    byId("filter").addEventListener("input", () => choose(null));
    byId("all").addEventListener("click", () => { choose(null); byId("list").querySelector("summary").focus(); });
    byId("back").addEventListener("click", () => { origin.scrollIntoView({ block: "center" }); origin.focus(); });
    addEventListener("hashchange", reveal);
    document.querySelector(".tools").hidden = false;
    filter();
    reveal();
  }

  wear(THEMES.includes(stored.read()) ? stored.read() : "auto");
  document.addEventListener("DOMContentLoaded", start);
})();
