// The text beside a result of the search is the page's own, in words: no menus, no drawings, no folded code, no TeX.
if (typeof Search !== "undefined") {
  const textOf = Search.htmlToText;
  const OTHER = `[class^=bd-header], #jb-print-docs-body, #jb-print-toc, .bd-sidebar-secondary, footer,
    .bd-article > :not(section), h1, svg, style, script, details.hide, .headerlink`;
  const SIGNS = {
    alpha: "α", beta: "β", gamma: "γ", delta: "δ", varepsilon: "ε", epsilon: "ε", zeta: "ζ", eta: "η", theta: "θ",
    lambda: "λ", mu: "μ", nu: "ν", xi: "ξ", rho: "ρ", sigma: "σ", tau: "τ", phi: "φ", varphi: "φ", psi: "ψ",
    omega: "ω", nabla: "∇", partial: "∂", sum: "Σ", approx: "≈", le: "≤", leq: "≤", ge: "≥", geq: "≥", in: "∈",
    cdot: "·", times: "×", circ: "∘", to: "→", gets: "←", cdots: "…", dots: "…", ldots: "…", top: "ᵀ", ell: "ℓ",
  };
  Search.htmlToText = (page, anchor) => {
    const read = new DOMParser().parseFromString(page, "text/html");
    for (const other of read.querySelectorAll(OTHER)) other.remove();
    for (const block of read.querySelectorAll("td, th, p, figcaption, figcaption strong")) block.append(" ");
    for (const formula of read.querySelectorAll(".math")) {
      formula.textContent = formula.textContent
        .replace(/\\([a-zA-Z]+)/g, (_, name) => SIGNS[name] ?? "")
        .replace(/\\.|[{}&]/g, "");
    }
    return textOf(read.documentElement.outerHTML, anchor);
  };
}
