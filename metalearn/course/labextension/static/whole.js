// A line may end after a formula, but not between it and the comma behind it or the bracket before it.
globalThis.keepWhole = (formula) => {
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
