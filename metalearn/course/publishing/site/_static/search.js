// The text beside a result of the search is the page's own, without the menus of the theme.
if (typeof Search !== "undefined") {
  const textOf = Search.htmlToText;
  const MENUS = "[class^=bd-header], #jb-print-docs-body, #jb-print-toc, .bd-sidebar-secondary, footer";
  Search.htmlToText = (page, anchor) => {
    const read = new DOMParser().parseFromString(page, "text/html");
    for (const menu of read.querySelectorAll(MENUS)) menu.remove();
    return textOf(read.documentElement.outerHTML, anchor);
  };
}
