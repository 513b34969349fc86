// What JupyterLab shows of a lesson before any of its cells has run: a module of styles, as JupyterLab loads it.

{
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

const INLINE = ".jp-RenderedMarkdown mjx-container:not([display])";
const keep = (formula) => formula.matches(INLINE) && !formula.closest(".ml-whole") && keepWhole(formula);
const folder = new URL(".", document.currentScript.src);

const start = async () => {
  const script = document.createElement("script");
  script.src = new URL("whole.js", folder);
  const loaded = new Promise((resolve) => (script.onload = resolve));
  const style = document.createElement("style");
  style.textContent = STYLE;
  document.head.append(style, script);
  await loaded;
  new MutationObserver((records) => {
    for (const { addedNodes } of records)
      for (const node of addedNodes)
        if (node.localName === "mjx-container") keep(node);
        else if (node.nodeType === Node.ELEMENT_NODE) node.querySelectorAll(INLINE).forEach(keep);
  }).observe(document.body, { childList: true, subtree: true });
};

(window._JUPYTERLAB ??= {})["metalearn-course"] = { init: () => {}, get: async () => () => void start() };
}
