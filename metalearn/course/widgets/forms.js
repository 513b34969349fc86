// The browser's side of `predict` and `quiz`. With a kernel (`render`) answers are stored; without one (`mount`) the
// page works alone.

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function control(properties) {
  const input = element("input", properties);
  input.dataset.lmSuppressShortcuts = true; // else JupyterLab takes the arrow keys for itself
  return input;
}

// One question. `answer(value)` is called with what was committed; `show(value, said, closed)` draws a state.
function question({ kind, prompt, options, unit, right, feedback }, typeset, answer) {
  const isQuiz = feedback !== undefined;
  const said = element("p", { className: "mf-said" });
  said.setAttribute("role", "status");
  const say = (text, tone = "") => {
    said.innerHTML = text;
    said.dataset.tone = tone;
    if (text) typeset(said);
  };
  const legend = element("legend", {}, element("strong", { textContent: `${kind}. ` }));
  legend.insertAdjacentHTML("beforeend", prompt);
  const choices = element("div", { className: options ? "mf-options" : "mf-number" });
  const place = element("fieldset", {}, legend, choices);
  let read, write;

  if (options) {
    const radios = options.map((text, value) => control({ type: "radio", name: "answer", value }));
    choices.append(...radios.map((radio, i) => element("label", {}, radio, element("span", { textContent: options[i] }))));
    read = () => { const i = radios.findIndex((radio) => radio.checked); return i < 0 ? null : i; };
    write = (value) => radios.forEach((radio, i) => (radio.checked = i === value));
    choices.addEventListener("change", () => (isQuiz ? say("") : answer(read())));
  } else {
    const input = control({ type: "number", step: "any" });
    const label = element("label", {}, unit ? `Your prediction (${unit})` : "Your prediction", input);
    choices.append(label, element("button", { textContent: "Commit" }));
    read = () => (Number.isFinite(input.valueAsNumber) ? input.valueAsNumber : null);
    write = (value) => (input.value = value ?? "");
    input.addEventListener("input", () => say(""));
    input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault(); // JupyterLab prevents the browser's own submission
      root.requestSubmit();
    });
  }
  const judge = (value) => {
    const passed = value === right;
    say(`<strong>${passed ? "✓ Right." : "✗ Not quite."}</strong> ${feedback[value]}`, passed ? "right" : "wrong");
  };
  if (isQuiz) place.append(element("button", { textContent: "Check" }));
  // A form of its own for each question, in which its radio buttons are one group.
  const root = element("form", { className: isQuiz ? "mf-quiz" : "mf-prediction", noValidate: true }, place, said);
  root.addEventListener("submit", (event) => {
    event.preventDefault();
    if (read() === null) return say(options ? "Choose an option first." : "Write a number first, such as 0.5.");
    if (isQuiz) judge(read());
    answer(read());
  });
  const show = (value, text, closed) => {
    write(value);
    place.disabled = closed;
    if (!isQuiz) say(text);
    else if (value !== null) judge(value);
    else say("");
  };
  return { root, show, prompt: legend, quiet: () => say("") };
}

function build(el, fields, typeset, answer) {
  const questions = fields.map((field, i) => question(field, typeset, (value) => answer(i, value)));
  el.replaceChildren(...questions.map(({ root }) => root));
  el.classList.add("metalearn-form", "metalearn-awake");
  questions.forEach(({ prompt }) => typeset(prompt));
  return questions;
}

function render({ model, el }) {
  // JupyterLab hides what stands in for a missing widget by a style sheet, other programs by this.
  if (!document.querySelector(".jp-OutputArea")) {
    const isMine = ({ dataset }) => JSON.stringify(JSON.parse(dataset.form).fields) === JSON.stringify(model.get("fields"));
    [...document.querySelectorAll(".metalearn-asleep[data-form]")].filter(isMine).forEach((each) => each.remove());
  }
  const typesetter = model.widget_manager?.rendermime?.latexTypesetter;
  const typeset = (node) => node.textContent.includes("$") && typesetter?.typeset(node);
  const questions = build(el, model.get("fields"), typeset, (i, value) => {
    model.set("answers", model.get("answers").with(i, value));
    model.save_changes();
    show([i]); // also where the same was committed again
  });
  const asleep = element("p", { className: "mf-asleep" });
  asleep.setAttribute("role", "status");
  el.append(asleep);
  const isGone = watchKernel(model, () => wake());
  const show = (only) => {
    const [answers, said, closed] = ["answers", "said", "closed"].map((name) => model.get(name));
    questions.forEach(({ show }, i) => {
      if (only === undefined || only.includes(i)) show(answers[i] ?? null, said[i] ?? "", closed || isGone());
    });
  };
  // A change is drawn where it is one, lest what is being chosen in another question is lost.
  let before = model.get("answers");
  const update = () => {
    const now = model.get("answers");
    show([...now.keys()].filter((i) => now[i] !== before[i]));
    before = now;
  };
  model.on("change:answers", update);
  model.on("change:said change:closed", () => show());
  const wake = () => {
    show();
    if (isGone()) questions.forEach(({ quiet }) => quiet());
    asleep.textContent = isGone() ? STOPPED : "";
  };
  wake();
}

// On a page without a kernel: what is chosen is not kept, and the text below tells what a prediction asks.
function mount(el) {
  const { fields } = JSON.parse(el.dataset.form);
  // MathJax, as the website sets it up, looks for \\(...\\) in elements of the class "math". On loading it finds them itself.
  const typeset = (node) => {
    if (!node.textContent.includes("$")) return;
    node.innerHTML = node.innerHTML.replace(/\$([^$]+)\$/g, '<span class="math">\\($1\\)</span>');
    globalThis.MathJax?.typesetPromise?.([node]);
  };
  el.classList.remove("metalearn-asleep");
  const questions = build(el, fields, typeset, (i, value) => {
    if (!fields[i].feedback) questions[i].show(value, "Keep it in mind: the answer comes below.", false);
  });
}

export default { render };
