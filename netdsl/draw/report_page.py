"""The report's style and script."""

STYLE = """
:root { --ink: #1a1a1a; --faint: #5c5c5c; --line: #dcdcdc; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff;
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 24px 64px; }
h1 { font-size: 30px; margin: 0; }
header p { margin: 2px 0 18px; color: var(--faint); }
h2 { font-size: 19px; margin: 40px 0 12px; padding-bottom: 6px;
  border-bottom: 1px solid var(--line); }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; }
.tiles div { border: 1px solid var(--line); border-radius: 8px; padding: 10px 16px; }
.tiles b { display: block; font-size: 19px; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--faint); font-size: 13px; }
.chart svg { width: 100%; height: auto; }
.graph { overflow: auto; max-height: 85vh; border: 1px solid var(--line); border-radius: 8px; }
.graph svg { display: block; margin: 0 auto; max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px;
  font-variant-numeric: tabular-nums; }
th, td { padding: 4px 10px; text-align: left; vertical-align: top; }
.right { text-align: right; white-space: nowrap; }
thead th { position: sticky; top: 0; background: #fff; border-bottom: 2px solid var(--ink); }
tbody tr:nth-child(even) { background: #f7f7f7; }
tfoot td { font-weight: 600; border-top: 2px solid var(--ink); }
td.bar { background: linear-gradient(to left,
  color-mix(in srgb, var(--color) 28%, transparent) calc(var(--share) * 100%), transparent 0); }
th button { font: inherit; font-weight: 600; border: 0; padding: 0; background: none;
  color: inherit; cursor: pointer; }
th button::after { content: " \\2195"; color: #a8a8a8; }
th[aria-sort="ascending"] button::after { content: " \\2191"; color: var(--ink); }
th[aria-sort="descending"] button::after { content: " \\2193"; color: var(--ink); }
@media print { .graph { max-height: none; } th button::after { content: ""; } }
"""

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const value = (row, i) => {
    const raw = row.cells[i].dataset.value, number = Number(raw);
    return raw !== "" && !Number.isNaN(number) ? number : raw;
  };
  const compare = (a, b) => typeof a === "number" && typeof b === "number"
    ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  heads.forEach((head, i) => head.querySelector("button").addEventListener("click", () => {
    const first = head.classList.contains("right") ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    heads.forEach(one => one.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...body.rows];
    rows.sort((a, b) => sign * compare(value(a, i), value(b, i)));
    body.append(...rows);
  }));
}
"""
