// Tables are there without this; with it they sort by a column, and say that they scroll.
const numberIn = text => {
  const found = text.replace(/,(?=\d{3})/g, "").match(/^[<>\s]*([-−+]?\d+\.?\d*(?:e[-+]?\d+)?)/);
  return found && Number(found[1].replace("−", "-"));
};

// numbers before words before what is blank, whichever way it is sorted
function compare(one, other, sign) {
  const blank = (one === "") - (other === "");
  const [a, b] = [numberIn(one), numberIn(other)];
  if (blank) return blank;
  if (a !== null && b !== null && a !== b) return sign * (a - b);
  if ((a === null) !== (b === null)) return (a === null) - (b === null);
  return sign * one.localeCompare(other);
}

function sortable(table) {
  const body = table.tBodies[0], headings = [...table.tHead.rows[0].cells], asWritten = [...body.rows];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort by this column; a third click restores the order.";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: "none" }[heading.getAttribute("aria-sort")] ?? "ascending";
      headings.forEach(other => other.removeAttribute("aria-sort"));
      if (next !== "none") heading.setAttribute("aria-sort", next);
      const sign = next === "descending" ? -1 : 1, text = row => row.cells[column].textContent.trim();
      const sorted = [...asWritten].sort((one, other) => compare(text(one), text(other), sign));
      body.append(...(next === "none" ? asWritten : sorted));
    });
  });
}

function hinted(box) {
  const hint = document.createElement("p");
  hint.className = "hint";
  hint.textContent = "Scroll sideways for more columns →";
  box.before(hint);
  const update = () => { hint.hidden = box.scrollWidth <= box.clientWidth; };
  update();
  new ResizeObserver(update).observe(box);
}

document.querySelectorAll("table").forEach(sortable);
document.querySelectorAll(".scroll").forEach(hinted);
