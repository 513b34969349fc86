document.querySelectorAll("span.math").forEach(keepWhole);

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
