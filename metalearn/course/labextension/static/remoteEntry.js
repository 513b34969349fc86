// What JupyterLab shows of a lesson before any of its cells has run: a module of styles, as JupyterLab loads it.

const STYLE = `
/* The picture on top of a lesson, which is drawn in light colours, follows a dark theme. */
@media screen {
  [data-jp-theme-light="false"] .ml-opening img { filter: invert(0.92) hue-rotate(180deg) brightness(1.15); }
}
/* The first line of a folded cell ends with dots where the window is narrow. */
.jp-Cell-inputWrapper:has(.jp-InputPlaceholder), .jp-InputPlaceholder { min-width: 0; }
.jp-InputPlaceholder .jp-Placeholder-content { min-width: 0; }
.jp-InputPlaceholder .jp-Placeholder-contentContainer { display: flex; min-width: 0; max-width: 100%; }
.jp-InputPlaceholder .jp-PlaceholderText { min-width: 0; overflow: hidden; text-overflow: ellipsis; }
.ml-whole { white-space: nowrap; }
`;

// A line may end after a formula, but not between it and the comma behind it or the bracket before it.
const keepWhole = (formula) => {
  if (!formula.closest(".jp-RenderedMarkdown") || formula.closest(".ml-whole") || formula.hasAttribute("display")) return;
  const [before, after] = [formula.previousSibling, formula.nextSibling];
  const opening = (before?.nodeType === Node.TEXT_NODE && before.data.match(/[(\[“]+$/)?.[0]) || "";
  const closing = (after?.nodeType === Node.TEXT_NODE && after.data.match(/^[^\s\p{L}\p{N}(\[]+/u)?.[0]) || "";
  if (!opening && !closing) return;
  if (opening) before.data = before.data.slice(0, -opening.length);
  if (closing) after.data = after.data.slice(closing.length);
  const whole = document.createElement("span");
  whole.className = "ml-whole";
  formula.replaceWith(whole);
  whole.append(opening, formula, closing);
};

const start = () => {
  const style = document.createElement("style");
  style.textContent = STYLE;
  document.head.append(style);
  new MutationObserver((records) => {
    for (const { addedNodes } of records)
      for (const node of addedNodes)
        if (node.localName === "mjx-container") keepWhole(node);
        else if (node.nodeType === Node.ELEMENT_NODE) node.querySelectorAll("mjx-container").forEach(keepWhole);
  }).observe(document.body, { childList: true, subtree: true });
  return {};
};

(window._JUPYTERLAB ??= {})["metalearn-course"] = { init: () => {}, get: async () => start };
