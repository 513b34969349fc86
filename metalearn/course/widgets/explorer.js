// The browser's side of `explore`: native controls, each in its label, and a picture that the kernel draws.

function control({ name, label: words, options, ...range }, model) {
  const label = document.createElement("label");
  const input = document.createElement(options ? "select" : "input");
  const shown = document.createElement("output"); // beside the label, so that it is no part of the control's name
  const start = model.get("values")[name];
  const say = () => (shown.value = input.ariaValueText = Number(input.valueAsNumber.toPrecision(3)));
  if (options) {
    input.append(...options.map((option) => new Option(option)));
    input.selectedIndex = options.indexOf(start);
  } else {
    Object.assign(input, { type: "range", ...range }).value = start;
    say();
  }
  input.addEventListener("input", () => {
    const value = options ? options[input.selectedIndex] : input.valueAsNumber;
    if (!options) say();
    model.set("values", { ...model.get("values"), [name]: value });
    model.save_changes();
  });
  input.dataset.lmSuppressShortcuts = true; // else JupyterLab takes the arrow keys for itself
  label.append(words, input);
  return [label, shown];
}

function render({ model, el }) {
  const title = document.createElement("strong");
  const form = document.createElement("form");
  const picture = document.createElement("div");
  const trouble = document.createElement("p");
  const stopped = document.createElement("p");
  const show = () => (picture.innerHTML = model.get("svg")); // drawn by `plots.svg`, which escapes every text
  const tell = () => (trouble.textContent = model.get("trouble"));
  form.append(...model.get("controls").flatMap((each) => control(each, model)));
  title.textContent = model.get("title");
  picture.className = "picture";
  trouble.setAttribute("role", "alert");
  stopped.setAttribute("role", "status");
  stopped.className = "stopped";
  el.classList.add("metalearn-explorer", "metalearn-awake");
  el.append(title, form, picture, trouble, stopped);
  model.on("change:svg", show);
  model.on("change:trouble", tell);
  show();
  tell();
  const wake = (isGone) => {
    stopped.textContent = isGone ? STOPPED : "";
    for (const input of form.elements) input.disabled = isGone;
  };
  wake(watchKernel(model, wake)());
}

export default { render };
