// A line may end after a formula, but not between it and the comma behind it or the bracket before it.
for (const formula of document.querySelectorAll("span.math")) {
  const [before, after] = [formula.previousSibling, formula.nextSibling];
  const opening = (before?.nodeType === Node.TEXT_NODE && before.data.match(/[(\[“]+$/)?.[0]) || "";
  const closing = (after?.nodeType === Node.TEXT_NODE && after.data.match(/^[^\s\p{L}\p{N}(\[]+/u)?.[0]) || "";
  if (!opening && !closing) continue;
  if (opening) before.data = before.data.slice(0, -opening.length);
  if (closing) after.data = after.data.slice(closing.length);
  const whole = document.createElement("span");
  whole.className = "ml-whole";
  formula.replaceWith(whole);
  whole.append(opening, formula, closing);
}

// A display that is wider than a phone becomes smaller, as far as it stays legible; the rest of it scrolls.
const fit = () => {
  for (const formula of document.querySelectorAll("div.math > mjx-container")) {
    formula.parentElement.style.fontSize = "";
    const share = formula.clientWidth / formula.scrollWidth;
    if (share < 1) formula.parentElement.style.fontSize = `${100 * Math.max(0.62, 0.98 * share)}%`;
  }
};
addEventListener("load", () => globalThis.MathJax?.startup?.promise?.then(fit));
addEventListener("resize", fit);
