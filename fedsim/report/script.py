"""The page's only script: filters for tables that ask for them. Without it every row stands there all the same."""

SCRIPT = """
for (const table of document.querySelectorAll("table:has(th[data-filter])")) {
  const titles = [...table.tHead.rows[0].cells], rows = [...table.tBodies[0].rows];
  const word = (row, i) => (row.cells[i].firstElementChild || row.cells[i]).textContent.trim();
  const box = document.createElement("div"), told = document.createElement("span"), chosen = new Map();
  box.className = "filters";
  told.setAttribute("role", "status");
  const show = () => {
    let left = 0;
    for (const row of rows) {
      row.hidden = [...chosen].some(([i, value]) => value && word(row, i) !== value);
      left += !row.hidden;
    }
    told.textContent = left + " of " + rows.length + " rows";
  };
  titles.forEach((title, i) => {
    const values = [...new Set(rows.map(row => word(row, i)))];
    if (!title.hasAttribute("data-filter") || values.length < 2) return;
    const label = document.createElement("label"), select = document.createElement("select");
    select.add(new Option("all", ""));
    for (const value of values) select.add(new Option(value, value));
    select.addEventListener("change", () => { chosen.set(i, select.value); show(); });
    label.append(title.textContent + " ", select);
    box.append(label);
  });
  if (!box.children.length) continue;
  box.append(told);
  table.closest(".scroll").before(box);
  show();
}
"""
