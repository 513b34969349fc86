// The playgrounds. Everything happens here, in the browser: no kernel and no server is asked once this is on a page.

// Numbers in words ----------------------------------------------------------------------------------------------------

const SUPERSCRIPTS = { "-": "⁻", ...Object.fromEntries([..."⁰¹²³⁴⁵⁶⁷⁸⁹"].entries()) };

function say(value, digits = 3) {
  if (!Number.isFinite(value)) return "diverged";
  const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
  const small = Number(exponent) < -3 || Number(exponent) > 4;
  if (value === 0 || !small) return String(Number(value.toPrecision(digits))).replace("-", "−");
  const power = [...String(Number(exponent))].map((digit) => SUPERSCRIPTS[digit]).join("");
  return `${mantissa.replace("-", "−")} · 10${power}`;
}

// Drawing -------------------------------------------------------------------------------------------------------------

function element(tag, properties = {}, ...children) {
  const { dataset, ...rest } = properties;
  const made = Object.assign(document.createElement(tag), rest);
  Object.assign(made.dataset, dataset);
  made.append(...children);
  return made;
}

function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const range = (low, high, number) => Array.from({ length: number }, (_, i) => low + ((high - low) * i) / (number - 1));
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const subscript = (letter, index) => [letter, svg("tspan", { dy: 4, "font-size": 10 }, index)];
// Several playgrounds, each with its own copy of this code, may share a page.
const unique = (name) => `metalearn-${name}-${Math.random().toString(36).slice(2)}`;

// One pair of axes. `x` and `y` are [low, high]; `xText` and `yText` write a tick.
class Panel {
  constructor({ x, y, xTicks, yTicks, xName, yName, height, right = 14, xText = say, yText = say, ...attributes }) {
    Object.assign(this, { x, y, xTicks, yTicks, xName, yName, height, right, xText, yText });
    const id = unique("frame");
    this.frame = svg("rect");
    this.axes = svg("g", { class: "axes", "aria-hidden": "true" });
    this.lines = svg("g", { "clip-path": `url(#${id})` });
    this.marks = svg("g");
    const clip = svg("clipPath", { id }, this.frame);
    this.element = svg("svg", { class: "mp-panel", ...attributes }, clip, this.axes, this.lines, this.marks);
  }

  // Fits the drawing to the room there is, so that text keeps its size; false if the panel is not on the page.
  resize() {
    this.width = this.element.clientWidth;
    if (!this.width) return false;
    this.element.setAttribute("height", this.height);
    this.element.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    [this.left, this.top] = [42, this.yName ? 24 : 8];
    [this.end, this.bottom] = [this.width - this.right, this.height - 40];
    const size = { x: this.left, y: this.top, width: this.end - this.left, height: this.bottom - this.top };
    for (const [name, value] of Object.entries(size)) this.frame.setAttribute(name, Math.max(0, value));
    return true;
  }

  px = (x) => this.left + ((x - this.x[0]) / (this.x[1] - this.x[0])) * (this.end - this.left);
  py = (y) => this.bottom - ((y - this.y[0]) / (this.y[1] - this.y[0])) * (this.bottom - this.top);

  // Where an event happened, in the units of the axes and within them.
  place(event) {
    const box = this.element.getBoundingClientRect();
    const [right, up] = [event.clientX - box.left - this.left, this.bottom - (event.clientY - box.top)];
    const [x, y] = [right / (this.end - this.left), up / (this.bottom - this.top)];
    return [this.x, this.y].map(([low, high], i) => low + (high - low) * clamp([x, y][i], 0, 1));
  }

  text(x, y, content, attributes = {}) {
    return svg("text", { x, y, ...attributes }, ...[content].flat());
  }

  drawAxes() {
    const middle = { "text-anchor": "middle" };
    this.axes.replaceChildren(
      ...this.yTicks.flatMap((y) => [
        svg("line", { x1: this.left, x2: this.end, y1: this.py(y), y2: this.py(y) }),
        this.text(this.left - 8, this.py(y) + 4, this.yText(y), { "text-anchor": "end" }),
      ]),
      svg("line", { class: "axis", x1: this.left, x2: this.end, y1: this.bottom, y2: this.bottom }),
      ...this.xTicks.map((x) => this.text(this.px(x), this.bottom + 17, this.xText(x), middle)),
      this.text((this.left + this.end) / 2, this.height - 5, this.xName, middle),
      this.text(this.left - 34, 13, this.yName ?? ""),
    );
  }

  // Far outside there is nothing to see, and browsers dislike huge coordinates.
  path(xs, ys, kind) {
    const points = xs.flatMap((x, i) =>
      Number.isFinite(ys[i]) ? [`${this.px(x).toFixed(2)} ${clamp(this.py(ys[i]), -1e4, 1e4).toFixed(2)}`] : [],
    );
    return svg("path", { class: `curve ${kind}`, d: points.length ? `M${points.join("L")}` : "" });
  }

  dot(x, y, kind, radius = 5) {
    return svg("circle", { class: `dot ${kind}`, cx: this.px(x), cy: clamp(this.py(y), -1e4, 1e4), r: radius });
  }

  // Names at the right end of curves, moved apart where they would touch.
  labels(named) {
    const seen = named.filter(({ y }) => Number.isFinite(y)).map((each) => ({ ...each, at: this.py(each.y) }));
    seen.sort((one, other) => one.at - other.at);
    const room = 17;
    let lowest = this.top + 4;
    for (const each of seen) lowest = (each.at = clamp(each.at, lowest, this.bottom)) + room;
    let highest = this.bottom;
    for (const each of seen.reverse()) highest = (each.at = Math.min(each.at, highest)) - room;
    return seen.map(({ name, kind, at }) => this.text(this.end + 6, at + 4, name, { class: `mp-name ${kind}` }));
  }
}

const sample = (kind) =>
  svg(
    "svg",
    { class: "sample", width: 30, height: 12, "aria-hidden": "true" },
    svg("path", { class: `curve ${kind}`, d: "M1 6H29" }),
  );

function table(caption, heads, rows) {
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
  return element("table", {}, element("caption", {}, caption), element("thead", {}, head), element("tbody", {}, ...rows));
}

function slider(name, properties, describe) {
  const shown = element("span", { className: "mp-value", ariaHidden: "true" }); // said by the slider itself
  const input = element("input", { type: "range", ...properties });
  const update = () => (shown.textContent = input.ariaValueText = describe());
  return { input, update, label: element("label", {}, element("span", {}, name), input), shown };
}

// Networks ------------------------------------------------------------------------------------------------------------

const bytesOf = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

// The parameters of a network: for each layer its kernel [inputs, outputs], row by row, and its bias.
function unpack(text, sizes) {
  const numbers = Float64Array.from(new Float32Array(bytesOf(text).buffer));
  let position = 0;
  const take = (size) => numbers.slice(position, (position += size));
  return sizes.slice(1).map((outputs, i) => ({ kernel: take(sizes[i] * outputs), bias: take(outputs) }));
}

// The same, of numbers of one byte with a scale for each kernel and bias; the layers that are not given are 0.
function unpackBytes(packed, sizes) {
  const leaf = (index, size) => {
    if (!packed[index]) return new Float64Array(size);
    const { scale, numbers } = packed[index];
    return Float64Array.from(new Int8Array(bytesOf(numbers).buffer), (number) => scale * number);
  };
  return sizes.slice(1).map((outputs, i) => ({
    kernel: leaf(2 * i, sizes[i] * outputs),
    bias: leaf(2 * i + 1, outputs),
  }));
}

// The values of every layer for one input, the input's own first.
function forward(layers, input) {
  const values = [input];
  layers.forEach(({ kernel, bias }, depth) => {
    const before = values[depth];
    const after = bias.slice();
    for (let i = 0, place = 0; i < before.length; i++, place += after.length) {
      const value = before[i];
      if (value !== 0) for (let j = 0; j < after.length; j++) after[j] += value * kernel[place + j];
    }
    if (depth < layers.length - 1) for (let j = 0; j < after.length; j++) after[j] = Math.max(after[j], 0);
    values.push(after);
  });
  return values;
}

// φ ← φ - α ∇h(φ), with h the mean over examples [input, target] of a loss whose derivative with respect to the outputs
// is `slope(outputs, target)`.
function gradientStep(layers, examples, rate, slope) {
  const gradient = layers.map(({ kernel, bias }) => ({
    kernel: new Float64Array(kernel.length),
    bias: new Float64Array(bias.length),
  }));
  for (const [input, target] of examples) {
    const values = forward(layers, input);
    let delta = slope(values.at(-1), target).map((each) => each / examples.length);
    for (let depth = layers.length - 1; depth >= 0; depth--) {
      const [before, { kernel }, { kernel: ofKernel, bias: ofBias }] = [values[depth], layers[depth], gradient[depth]];
      const backward = new Float64Array(before.length);
      const width = delta.length;
      for (let j = 0; j < width; j++) ofBias[j] += delta[j];
      for (let i = 0, place = 0; i < before.length; i++, place += width) {
        const value = before[i];
        if (value === 0) continue; // no ink, or a relu that is off, which passes nothing on
        let sum = 0;
        for (let j = 0; j < width; j++) {
          ofKernel[place + j] += value * delta[j];
          sum += kernel[place + j] * delta[j];
        }
        backward[i] = sum;
      }
      delta = backward;
    }
  }
  const moved = (numbers, slopes) => {
    for (let i = 0; i < numbers.length; i++) slopes[i] = numbers[i] - rate * slopes[i];
    return slopes;
  };
  return layers.map(({ kernel, bias }, depth) => ({
    kernel: moved(kernel, gradient[depth].kernel),
    bias: moved(bias, gradient[depth].bias),
  }));
}

// Adapt a sine --------------------------------------------------------------------------------------------------------

const NETWORKS = {
  maml: { name: "MAML", label: "MAML" },
  joint: { name: "joint training", label: "joint" },
  random: { name: "random", label: "random" },
};
const RATES = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1];
const MOST_STEPS = 30; // with the most points, all of them within a frame
const MOST_POINTS = 10;
const FIRST_POINTS = [-4.2, -2.4, -0.6, 1.5, 3.6].map((x) => [x, 3.5 * Math.sin(x - 0.8)]);

const predict = (layers, x) => forward(layers, Float64Array.of(x)).at(-1)[0];
const slopeOfSquare = ([output], target) => Float64Array.of(2 * (output - target));
const meanSquaredError = (layers, points) =>
  points.reduce((sum, [x, y]) => sum + (predict(layers, x) - y) ** 2, 0) / points.length;

function adaptASine(card, data, tell) {
  const initial = Object.entries(NETWORKS).map(([kind]) => [kind, unpack(data.networks[kind], data.sizes)]);
  const grid = range(-5, 5, 121);
  const reduced = matchMedia("(prefers-reduced-motion: reduce)");
  let points = FIRST_POINTS.map((point) => [...point]);
  let [rate, steps, cursor, timer, held] = [data.rate, 0, [0, 0], null, null];
  let runs = {};

  const helpId = unique("help");
  const plane = new Panel({
    ...{ x: [-5, 5], y: [-6, 6], xTicks: [-4, -2, 0, 2, 4], yTicks: [-5, 0, 5], xName: "x", yName: "y" },
    ...{ height: 340, right: 64, tabindex: 0, role: "application", class: "mp-panel plane" },
    ...{ "aria-label": "Plane of support points", "aria-describedby": helpId },
  });
  const losses = new Panel({
    ...{ x: [0, 10], y: [0, 1], xTicks: [], yTicks: [], xName: "inner step k", yName: "loss on the points" },
    ...{ height: 190, right: 14, role: "img", "aria-label": "Curves of the losses in the table, against inner steps" },
  });
  const rows = Object.fromEntries(
    Object.entries(NETWORKS).map(([kind, { name }]) => {
      const [before, now] = [element("td"), element("td", { className: "now" })];
      const head = element("th", { scope: "row" }, sample(kind), name);
      return [kind, { before, now, row: element("tr", {}, head, before, now) }];
    }),
  );
  const now = element("span");
  const numbers = table("Loss on your points", ["initialization", "k\u00a0=\u00a00", now], Object.values(rows).map((r) => r.row));
  const buttons = {
    play: element("button", { type: "button", className: "mp-main" }),
    step: element("button", { type: "button" }, "One step"),
    reset: element("button", { type: "button" }, "Back to k = 0"),
    another: element("button", { type: "button" }, "Another sine"),
    clear: element("button", { type: "button" }, "Remove all points"),
  };
  const rates = slider(
    "inner learning rate α",
    { min: 0, max: RATES.length - 1, step: 1, value: RATES.indexOf(rate) },
    () => String(rate),
  );
  const help = element(
    "p",
    { className: "mp-note", id: helpId },
    "Click into the plane to place a point, drag a point to move it, click it to remove it. " +
      "With the keyboard: the arrow keys move a cross, Enter places a point there, Delete removes the nearest one.",
  );
  card.append(
    element(
      "div",
      { className: "adapt" },
      element("div", { className: "plane-area" }, plane.element),
      element("div", { className: "loss-area" }, numbers, losses.element),
      element(
        "div",
        { className: "control-area" },
        element("div", { className: "buttons" }, ...Object.values(buttons)),
        element("div", { className: "slider" }, rates.label, rates.shown),
      ),
      help,
    ),
  );

  // What is shown is always the same function of the points, α and k: every network after k steps from its
  // initialization.
  function advance(run) {
    const examples = points.map(([x, y]) => [Float64Array.of(x), y]);
    run.layers = gradientStep(run.layers, examples, rate, slopeOfSquare);
    run.losses.push(meanSquaredError(run.layers, points));
  }
  function adaptAgain() {
    if (!points.length) steps = 0;
    runs = Object.fromEntries(
      initial.map(([kind, layers]) => {
        const run = { layers, losses: points.length ? [meanSquaredError(layers, points)] : [] };
        for (let k = 0; k < steps; k++) advance(run);
        return [kind, run];
      }),
    );
  }

  // The curves; `part` of the way from where they were one step before.
  function drawPlane(part = 1) {
    const curves = Object.entries(runs).map(([kind, { curve, before = curve }]) => [
      kind,
      curve.map((y, i) => before[i] + part * (y - before[i])),
    ]);
    plane.lines.replaceChildren(...curves.toReversed().map(([kind, curve]) => plane.path(grid, curve, kind)));
    plane.marks.replaceChildren(
      ...plane.labels(curves.map(([kind, curve]) => ({ name: NETWORKS[kind].label, kind, y: curve.at(-1) }))),
      svg("path", {
        class: "cross",
        d: `M${plane.px(cursor[0])} ${plane.py(cursor[1])}m-10 0h20m-10 -10v20`,
      }),
      ...points.flatMap(([x, y], i) => [
        plane.dot(x, y, "point", 6),
        svg("circle", { class: "handle", cx: plane.px(x), cy: plane.py(y), r: 16, "data-index": i }),
      ]),
    );
  }
  let [axesDrawn, moving] = ["", 0];
  function glide() {
    const begun = performance.now();
    const frame = (time) => {
      const part = clamp((time - begun) / 180, 0, 1);
      drawPlane(part);
      moving = part < 1 ? requestAnimationFrame(frame) : 0;
    };
    frame(begun);
  }

  function draw() {
    if (!plane.resize() || !losses.resize()) return;
    cancelAnimationFrame(moving);
    const entries = Object.entries(runs);
    for (const [, run] of entries) {
      Object.assign(run, { curve: grid.map((x) => predict(run.layers, x)), before: undefined });
    }

    const first = entries.map(([, run]) => run.losses[0] ?? 1);
    const top = [1, 2, 5, 10, 20, 50, 100].find((bound) => bound >= Math.max(...first)) ?? 100;
    const last = Math.max(10, steps);
    Object.assign(losses, { x: [0, last], y: [0, 1.05 * top], xTicks: [0, last / 2, last], yTicks: [0, top / 2, top] });
    const axes = [plane.width, losses.width, top, last].join();
    if (axes !== axesDrawn) for (const panel of [plane, losses]) panel.drawAxes();
    axesDrawn = axes;
    drawPlane();
    losses.lines.replaceChildren(
      ...entries.toReversed().map(([kind, run]) => losses.path(run.losses.map((_, k) => k), run.losses, kind)),
    );
    losses.marks.replaceChildren(
      ...entries.flatMap(([kind, { losses: [...all] }]) =>
        all.length && all.at(-1) <= 1.05 * top ? [losses.dot(all.length - 1, all.at(-1), kind, 4)] : [],
      ),
    );
    for (const [kind, run] of entries) {
      rows[kind].before.textContent = run.losses.length ? say(run.losses[0], 2) : "–";
      rows[kind].now.textContent = run.losses.length ? say(run.losses.at(-1), 2) : "–";
    }
    now.textContent = `now, k\u00a0=\u00a0${steps}`;
    buttons.play.textContent = timer ? "Pause" : reduced.matches ? "Ten steps" : "Play";
    buttons.play.disabled = buttons.step.disabled = !points.length || steps >= MOST_STEPS;
    buttons.reset.disabled = steps === 0;
    buttons.clear.disabled = !points.length;
    rates.update();
  }

  const inWords = () =>
    points.length
      ? `After ${steps} inner steps the loss on ${points.length} points is ` +
        Object.entries(NETWORKS)
          .map(([kind, { name }]) => `${say(runs[kind].losses.at(-1), 2)} from ${name}`)
          .join(", ") +
        "."
      : "No points: place some to adapt to.";

  const changed = frames(() => {
    adaptAgain();
    draw();
  });
  function pause(words = true) {
    clearInterval(timer);
    timer = null;
    draw();
    if (words) tell(inWords());
  }
  function step(number = 1) {
    const before = Object.values(runs).map((run) => run.curve);
    for (; number > 0 && steps < MOST_STEPS; number--) {
      Object.values(runs).forEach(advance);
      steps++;
    }
    draw();
    Object.values(runs).forEach((run, i) => (run.before = before[i]));
    if (!reduced.matches && before.every(Boolean)) glide();
    if (timer && steps >= MOST_STEPS) pause();
  }
  function add(place) {
    if (points.length === MOST_POINTS) return tell(`At most ${MOST_POINTS} points: remove one first.`);
    points.push(place);
    changed.now();
    tell(`Point ${points.length} placed at ${place.map((value) => say(value, 2)).join(", ")}. ${inWords()}`);
  }
  function remove(index) {
    points.splice(index, 1);
    if (!points.length && timer) pause(false);
    changed.now();
    tell(`Point removed. ${inWords()}`);
  }

  buttons.play.onclick = () => {
    if (timer) return pause();
    if (reduced.matches) {
      step(10);
      return tell(inWords());
    }
    timer = setInterval(step, 250);
    step();
  };
  buttons.step.onclick = () => {
    step();
    tell(inWords());
  };
  buttons.reset.onclick = () => {
    steps = 0;
    if (timer) pause(false);
    changed.now();
    tell(inWords());
  };
  buttons.another.onclick = () => {
    const [amplitude, phase] = [0.1 + 4.9 * Math.random(), Math.PI * Math.random()];
    const inputs = Array.from({ length: 5 }, () => 10 * Math.random() - 5);
    points = inputs.map((x) => [x, amplitude * Math.sin(x - phase)]);
    steps = 0;
    if (timer) pause(false);
    changed.now();
    tell(`Five points of a sine with amplitude ${say(amplitude, 2)}. ${inWords()}`);
  };
  buttons.clear.onclick = () => {
    points = [];
    if (timer) pause(false);
    changed.now();
    tell(inWords());
  };
  rates.input.oninput = () => {
    rate = RATES[rates.input.valueAsNumber];
    changed();
  };
  rates.input.onchange = () => tell(inWords());

  let handled = false; // whether the click that follows has already had its effect
  plane.element.addEventListener("pointerdown", (event) => {
    handled = false;
    const index = event.target.dataset?.index;
    if (index === undefined || event.button !== 0) return;
    held = { index: Number(index), moved: false, from: [event.clientX, event.clientY] };
    plane.element.setPointerCapture(event.pointerId);
  });
  plane.element.addEventListener("pointermove", (event) => {
    if (!held) return;
    held.moved ||= Math.hypot(event.clientX - held.from[0], event.clientY - held.from[1]) > 4;
    if (!held.moved) return;
    points[held.index] = plane.place(event);
    changed();
  });
  const release = (event) => {
    if (!held) return;
    const { index, moved } = held;
    held = null;
    handled = true;
    if (moved) tell(inWords());
    else if (event.type === "pointerup") remove(index);
  };
  plane.element.addEventListener("pointerup", release);
  plane.element.addEventListener("pointercancel", release);
  plane.element.addEventListener("click", (event) => {
    if (!handled) add(plane.place(event));
    handled = false;
  });
  plane.element.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (move) {
      cursor = [0, 1].map((i) => clamp(cursor[i] + move[i] / 4, ...[plane.x, plane.y][i]));
      draw();
      tell(`x ${say(cursor[0])}, y ${say(cursor[1])}`);
    } else if (event.key === "Enter") {
      add([...cursor]);
    } else if ((event.key === "Delete" || event.key === "Backspace") && points.length) {
      const distances = points.map(([x, y]) => Math.hypot(x - cursor[0], y - cursor[1]));
      remove(distances.indexOf(Math.min(...distances)));
    } else {
      return;
    }
    event.preventDefault();
  });

  adaptAgain();
  return {
    draw,
    redo: changed.now,
    stop: () => clearInterval(timer),
    state: () => ({
      ...{ points, rate, steps, grid },
      losses: Object.fromEntries(Object.entries(runs).map(([kind, run]) => [kind, run.losses])),
      predictions: Object.fromEntries(
        Object.entries(runs).map(([kind, run]) => [kind, grid.map((x) => predict(run.layers, x))]),
      ),
    }),
  };
}

// Perturb the problem -------------------------------------------------------------------------------------------------

const SMALLEST = 1e-6;
const KINDS = ["forward", "symmetric"];

// ν f(φ) + h(φ) + λ/2 (φ - θ)² with h(φ) = cosh(φ - support) - 1 and f(φ) = (φ - query)²/2.
const objective = ({ support, query, theta, strength }, nu, phi) =>
  (nu * (phi - query) ** 2) / 2 + Math.cosh(phi - support) - 1 + (strength / 2) * (phi - theta) ** 2;

// φ_ν by Newton's method. With `to` = Math.fround every operation is rounded to float32.
function minimum(problem, nu, to = Number) {
  const [support, query, theta, strength] = ["support", "query", "theta", "strength"].map((name) => to(problem[name]));
  let phi = theta;
  for (let k = 0; k < 40; k++) {
    const inner = to(to(Math.sinh(to(phi - support))) + to(strength * to(phi - theta)));
    const gradient = to(inner + to(nu * to(phi - query)));
    const curvature = to(to(to(Math.cosh(to(phi - support))) + strength) + nu);
    phi = to(phi - to(gradient / curvature));
  }
  return phi;
}

// ∇F = -λ dφ_ν/dν at ν = 0, by a difference quotient.
function metaGradient(problem, kind, nu, to = Number) {
  nu = to(nu);
  const [ahead, other] = [minimum(problem, nu, to), minimum(problem, kind === "forward" ? 0 : -nu, to)];
  return to(-problem.strength * to(to(ahead - other) / (kind === "forward" ? nu : to(2 * nu))));
}

function perturbTheProblem(card, problem, tell) {
  const { query, strength, support, theta } = problem;
  const rest = minimum(problem, 0);
  const speed = -(rest - query) / (Math.cosh(rest - support) + strength); // dφ_ν/dν at ν = 0
  const exact = -strength * speed;
  const error = (kind, nu, to) => Math.abs(metaGradient(problem, kind, nu, to) / exact - 1);
  let nu = 0.5;

  const phis = range(-2.5, 2.5, 101);
  const nus = range(-1, 1, 101);
  const minima = nus.map((each) => minimum(problem, each));
  const exponents = range(-6, 0, 61);
  const logErrors = (to) => (kind) => exponents.map((e) => Math.log10(Math.max(error(kind, 10 ** e, to), 1e-14)));
  const [truncated, rounded] = [Number, Math.fround].map((to) => KINDS.map(logErrors(to)));
  const power = (e) => `10${[...String(e)].map((digit) => SUPERSCRIPTS[digit]).join("")}`;

  const described = { role: "img", height: 270 };
  const left = new Panel({
    ...{ x: [-2.5, 2.5], y: [-5.5, 10.5], xTicks: [-2, 0, 2], yTicks: [-5, 0, 5, 10], xName: "parameter φ" },
    ...{ yName: "perturbed objective", ...described, class: "mp-panel draggable" },
  });
  const middle = new Panel({
    ...{ x: [-1, 1], y: [-2.4, 1], xTicks: [-1, 0, 1], yTicks: [-2, -1, 0, 1], xName: "perturbation ν" },
    ...{ yName: "its minimum", right: 82, ...described, class: "mp-panel draggable" },
  });
  const right = new Panel({
    ...{ x: [-6, 0], y: [-10, 1], xTicks: [-6, -4, -2, 0], yTicks: [-9, -6, -3, 0], xText: power, yText: power },
    ...{ xName: "size of ν", yName: "relative error in float32", ...described, class: "mp-panel draggable" },
  });
  const all = [left, middle, right];

  const rows = Object.fromEntries(
    [
      ["tangent", "tangent (exact)"],
      ["forward", "forward chord"],
      ["symmetric", "symmetric chord"],
    ].map(([kind, name]) => {
      const cells = [element("td"), element("td")];
      return [kind, { cells, row: element("tr", {}, element("th", { scope: "row" }, sample(kind), name), ...cells) }];
    }),
  );
  const heads = ["slope by", "meta-gradient", "relative error"];
  const numbers = table("−λ times the slope, in float32", heads, Object.values(rows).map(({ row }) => row));
  const size = slider(
    "size of ν",
    { min: Math.log10(SMALLEST), max: 0, step: 0.05, value: Math.log10(nu) },
    () => `ν = ${say(nu, 2)}`,
  );
  const flip = element("button", { type: "button" }, "Change the sign of ν");
  const note = element(
    "p",
    { className: "mp-note" },
    "Drag in any of the three pictures, or use the slider: its scale is logarithmic, so a small ν is within reach. " +
      "In the third picture, dots are computed in float32, and lines show the error without rounding, by truncation alone.",
  );
  const titled = (title, panel, area) =>
    element("div", { className: area }, element("p", { className: "mp-panel-title" }, title), panel.element);
  card.append(
    element(
      "div",
      { className: "perturb" },
      titled("The minimum moves", left, "left-area"),
      titled("How fast, at ν = 0?", middle, "middle-area"),
      titled("Which ν is best?", right, "right-area"),
      element("div", { className: "number-area" }, numbers),
      element(
        "div",
        { className: "control-area" },
        element("div", { className: "slider" }, size.label, size.shown),
        element("div", { className: "buttons" }, flip),
      ),
      note,
    ),
  );

  let drawn = "";
  function draw() {
    if (!all.map((panel) => panel.resize()).every(Boolean)) return;
    const widths = all.map((panel) => panel.width).join();
    if (widths !== drawn) {
      all.forEach((panel) => panel.drawAxes());
      right.lines.replaceChildren(
        ...KINDS.map((kind, i) => right.path(exponents, truncated[i], `${kind} thin`)),
        ...KINDS.flatMap((kind, i) => exponents.map((e, j) => right.dot(e, rounded[i][j], kind, 2))),
      );
    }
    drawn = widths;
    const [here, opposite] = [minimum(problem, nu), minimum(problem, -nu)];
    const value = (at) => (phi) => objective(problem, at, phi);

    left.lines.replaceChildren(
      left.path(phis, phis.map(value(0)), "still"),
      left.path(phis, phis.map(value(nu)), "moving"),
    );
    left.marks.replaceChildren(
      left.dot(rest, value(0)(rest), "still"),
      left.dot(here, value(nu)(here), "moving filled", 7),
      ...[
        ["still", "0", rest, value(0)(rest), -sign()],
        ["moving", "ν", here, value(nu)(here), sign()],
      ].map(([kind, index, x, y, side]) =>
        left.text(left.px(x) + 14 * side, left.py(y) + 20, subscript("φ", index), {
          ...{ class: `mp-name ${kind}`, "text-anchor": side < 0 ? "end" : "start" },
        }),
      ),
    );

    const secants = {
      tangent: speed,
      forward: (here - rest) / nu,
      symmetric: (here - opposite) / (2 * nu),
    };
    const through = { tangent: [0, rest], forward: [0, rest], symmetric: [nu, here] };
    const at = (kind, x) => through[kind][1] + secants[kind] * (x - through[kind][0]);
    middle.lines.replaceChildren(
      middle.path(nus, minima, "moving"),
      ...Object.keys(secants).map((kind) => middle.path([-1, 1], [at(kind, -1), at(kind, 1)], kind)),
    );
    middle.marks.replaceChildren(
      middle.dot(0, rest, "still"),
      middle.dot(-nu, opposite, "symmetric"),
      middle.dot(nu, here, "moving filled", 7),
      ...middle.labels(Object.keys(secants).map((kind) => ({ name: kind, kind, y: at(kind, 1) }))),
      middle.text(middle.px(-0.8), middle.py(minima[10]) + 20, subscript("φ", "ν"), { class: "mp-name moving" }),
    );

    const marked = Math.log10(Math.abs(nu));
    const errors = KINDS.map((kind) => error(kind, nu, Math.fround));
    right.marks.replaceChildren(
      svg("line", { class: "present", x1: right.px(marked), x2: right.px(marked), y1: right.top, y2: right.bottom }),
      ...KINDS.map((kind, i) => right.dot(marked, Math.log10(Math.max(errors[i], 1e-9)), `${kind} filled`, 6)),
      ...[
        ["forward", -2.5, -12, "end"],
        ["symmetric", -2.9, 24, "start"],
      ].map(([kind, e, below, anchor]) =>
        right.text(right.px(e), right.py(Math.log10(error(kind, 10 ** e, Number))) + below, kind, {
          ...{ class: `mp-name ${kind}`, "text-anchor": anchor },
        }),
      ),
    );

    rows.tangent.cells.forEach((cell, i) => (cell.textContent = [say(exact, 6), "–"][i]));
    KINDS.forEach((kind, i) => {
      const shown = [say(metaGradient(problem, kind, nu, Math.fround), 6), say(errors[i], 2)];
      rows[kind].cells.forEach((cell, j) => (cell.textContent = shown[j]));
    });
    size.update();
    left.element.setAttribute(
      "aria-label",
      `The objective with ν = ${say(nu, 2)} has its minimum at φ = ${say(here)}; unperturbed at ${say(rest)}.`,
    );
    middle.element.setAttribute(
      "aria-label",
      `The minimum against ν. Slope of the tangent ${say(speed)}, of the forward chord ${say(secants.forward)}, ` +
        `of the symmetric chord ${say(secants.symmetric)}.`,
    );
    right.element.setAttribute(
      "aria-label",
      `Error against the size of ν, a V for each difference. At this ν: forward ${say(errors[0], 2)}, ` +
        `symmetric ${say(errors[1], 2)}.`,
    );
  }
  const inWords = () =>
    `ν = ${say(nu, 2)}: the minimum is at ${say(minimum(problem, nu))}; relative error ` +
    KINDS.map((kind) => `${say(error(kind, nu, Math.fround), 2)} with the ${kind} difference`).join(", ") +
    ".";

  const redraw = frames(draw);
  function set(value) {
    const sign = value < 0 ? -1 : 1;
    nu = sign * clamp(Math.abs(value), SMALLEST, 1);
    size.input.value = Math.log10(Math.abs(nu));
    redraw();
  }
  const sign = () => Math.sign(nu);
  size.input.oninput = () => {
    nu = sign() * 10 ** size.input.valueAsNumber;
    redraw();
  };
  size.input.onchange = () => tell(inWords());
  flip.onclick = () => {
    set(-nu);
    tell(inWords());
  };

  // Which ν a place in each picture stands for; in the first, the one whose minimum is there.
  const pull = (phi) => -(Math.sinh(phi - support) + strength * (phi - theta)) / (phi - query);
  const meant = new Map([
    [left, ([phi]) => (phi < query ? pull(phi) : 1)],
    [middle, ([x]) => x],
    [right, ([e]) => sign() * 10 ** e],
  ]);
  for (const [panel, nuAt] of meant) {
    const follow = (event) => set(nuAt(panel.place(event)));
    panel.element.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      panel.element.setPointerCapture(event.pointerId);
      follow(event);
    });
    panel.element.addEventListener("pointermove", (event) => {
      if (panel.element.hasPointerCapture(event.pointerId)) follow(event);
    });
    panel.element.addEventListener("pointerup", () => tell(inWords()));
  }

  return {
    draw,
    redo: draw,
    stop: () => {},
    state: () => ({
      ...{ nu, exact, minimum: minimum(problem, nu), minimum32: minimum(problem, nu, Math.fround) },
      ...Object.fromEntries(KINDS.map((kind) => [kind, metaGradient(problem, kind, nu, Math.fround)])),
    }),
  };
}

// Draw five symbols ---------------------------------------------------------------------------------------------------

const LETTERS = [..."ABCDE"];
const SIXTH = LETTERS.length; // the index of the drawing to guess
const CELLS = 9; // on each side of the keyboard's grid
const PAD = 100; // the pad's size in its own units

// Symbols of the example: strokes, each a list of places on the pad, right and down from 0 to 1.
const turning = (x, y, radius, from, to, number = 24) =>
  range(2 * Math.PI * from, 2 * Math.PI * to, number).map((t) => [x + radius * Math.cos(t), y + radius * Math.sin(t)]);
const EXAMPLES = [
  [[[0.2, 0.88], [0.2, 0.46], [0.5, 0.14], [0.8, 0.46], [0.8, 0.88], [0.2, 0.88]]], // a house
  [range(0, 1, 60).map((t) => [0.5 + 0.38 * t * Math.cos(16 * t), 0.5 + 0.38 * t * Math.sin(16 * t)])], // a spiral
  [[[0.62, 0.1], [0.3, 0.54], [0.66, 0.5], [0.36, 0.92]]], // a flash
  [
    range(0, 2 * Math.PI, 48).map((t) => [
      0.5 + 0.36 * Math.sin(t) ** 3,
      0.46 - 0.023 * (13 * Math.cos(t) - 5 * Math.cos(2 * t) - 2 * Math.cos(3 * t) - Math.cos(4 * t)),
    ]),
  ], // a heart
  [
    ...[turning(0.5, 0.5, 0.38, 0, 1, 40), turning(0.36, 0.4, 0.02, 0, 1, 6), turning(0.64, 0.4, 0.02, 0, 1, 6)],
    turning(0.5, 0.5, 0.2, 0.08, 0.42),
  ], // a face
  [range(0, 4, 6).map((_, i) => [0.5 + 0.4 * Math.sin(0.8 * Math.PI * i), 0.52 - 0.4 * Math.cos(0.8 * Math.PI * i)])], // a star
  [
    ...[[[0.5, 0.92], [0.5, 0.1]], [[0.5, 0.45], [0.2, 0.2]], [[0.5, 0.45], [0.8, 0.2]]],
    ...[[[0.5, 0.7], [0.25, 0.52]], [[0.5, 0.7], [0.75, 0.52]]],
  ], // a tree
  [[[0.2, 0.12], [0.8, 0.12], [0.2, 0.88], [0.8, 0.88], [0.2, 0.12]]], // an hourglass
  [
    ...[turning(0.5, 0.5, 0.38, 0.5, 1), [[0.12, 0.5], [0.88, 0.5]], [[0.5, 0.5], [0.5, 0.82]]],
    turning(0.42, 0.82, 0.08, 0, 0.5, 10),
  ], // an umbrella
  [[[0.1, 0.3], [0.35, 0.75], [0.5, 0.35], [0.65, 0.75], [0.9, 0.3]]], // a zigzag
];

// Numbers from 0 to 1 that only look random.
function seeded(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

// A symbol as an unsteady hand draws it: corners cut into short lines that waver, and all of it turned and stretched.
function byHand(strokes, random) {
  const about = (size) => size * (2 * random() - 1);
  const [turn, wide, high, slant] = [about(0.12), 1 + about(0.12), 1 + about(0.12), about(0.12)];
  const [cos, sin] = [Math.cos(turn), Math.sin(turn)];
  return strokes.map((stroke) => {
    const fine = stroke.flatMap(([x, y], i) => {
      if (i === stroke.length - 1) return [[x, y]];
      const [nextX, nextY] = stroke[i + 1];
      const pieces = Math.max(1, Math.round(Math.hypot(nextX - x, nextY - y) / 0.025));
      return Array.from({ length: pieces }, (_, k) => [x + ((nextX - x) * k) / pieces, y + ((nextY - y) * k) / pieces]);
    });
    const [moveX, moveY, sizeX, sizeY, phaseX, phaseY] = [0.02, 0.02, 0.016, 0.016, 3, 3].map(about);
    return fine.map(([x, y], i) => {
      const time = (6 * i) / Math.max(fine.length, 12);
      const [right, down] = [wide * (x - 0.5) + slant * (y - 0.5), high * (y - 0.5)];
      return [
        clamp(0.5 + cos * right - sin * down + moveX + sizeX * Math.sin(time + phaseX), 0.02, 0.98),
        clamp(0.5 + sin * right + cos * down + moveY + sizeY * Math.sin(time + phaseY), 0.02, 0.98),
      ];
    });
  });
}

// The straight pieces of a drawing, [[x, y], [x, y]] each. Filled cells of the grid are joined to their neighbours.
function segmentsOf(actions) {
  const middle = (cell) => [((cell % CELLS) + 0.5) / CELLS, (Math.floor(cell / CELLS) + 0.5) / CELLS];
  const filled = new Set(actions.flatMap(({ cell }) => (cell === undefined ? [] : [cell])));
  const has = (column, row) => column >= 0 && column < CELLS && filled.has(row * CELLS + column);
  const segments = [];
  for (const { points, cell } of actions) {
    if (points) {
      if (points.length === 1) segments.push([points[0], points[0]]);
      for (let i = 1; i < points.length; i++) segments.push([points[i - 1], points[i]]);
      continue;
    }
    const [column, row] = [cell % CELLS, Math.floor(cell / CELLS)];
    segments.push([middle(cell), middle(cell)]);
    for (const [right, down] of [[1, 0], [0, 1], [1, 1], [-1, 1]]) {
      const around = right && down && (has(column + right, row) || has(column, row + down));
      if (has(column + right, row + down) && !around) segments.push([middle(cell), middle(cell + right + CELLS * down)]);
    }
  }
  return segments;
}

// A drawing as the network sees it: ink from 0 to 1, centred, its longer side `ink` of the `side` pixels.
function pictureOf(segments, { side, ink, pen, smallest }) {
  const picture = new Float64Array(side * side);
  if (!segments.length) return picture;
  const bounds = [0, 1].map((axis) => {
    let [low, high] = [Infinity, -Infinity];
    for (const ends of segments) {
      low = Math.min(low, ends[0][axis], ends[1][axis]);
      high = Math.max(high, ends[0][axis], ends[1][axis]);
    }
    return [low, high];
  });
  const scale = (ink - pen) / Math.max(...bounds.map(([low, high]) => high - low), smallest);
  const to = (place, axis) => (place - (bounds[axis][0] + bounds[axis][1]) / 2) * scale + side / 2;
  const reach = pen / 2 + 0.5; // farther from the middle of a line there is no ink
  const nearest = new Float64Array(side * side).fill(reach * reach);
  for (const [[fromX, fromY], [toX, toY]] of segments) {
    const [startX, startY, endX, endY] = [to(fromX, 0), to(fromY, 1), to(toX, 0), to(toY, 1)];
    const [alongX, alongY] = [endX - startX, endY - startY];
    const square = Math.max(alongX * alongX + alongY * alongY, 1e-12);
    const first = (one, other) => Math.max(0, Math.floor(Math.min(one, other) - reach - 0.5));
    const last = (one, other) => Math.min(side - 1, Math.ceil(Math.max(one, other) + reach));
    const [lastRow, firstColumn, lastColumn] = [last(startY, endY), first(startX, endX), last(startX, endX)];
    for (let row = first(startY, endY); row <= lastRow; row++) {
      for (let column = firstColumn; column <= lastColumn; column++) {
        const [x, y] = [column + 0.5 - startX, row + 0.5 - startY];
        const part = clamp((x * alongX + y * alongY) / square, 0, 1);
        const distance = (x - part * alongX) ** 2 + (y - part * alongY) ** 2;
        if (distance < nearest[row * side + column]) nearest[row * side + column] = distance;
      }
    }
  }
  for (let i = 0; i < picture.length; i++) picture[i] = clamp(reach - Math.sqrt(nearest[i]), 0, 1);
  return picture;
}

function softmax(logits) {
  const largest = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - largest));
  const sum = powers.reduce((one, other) => one + other, 0);
  return powers.map((power) => power / sum);
}
const slopeOfCrossEntropy = (logits, label) => softmax(logits).map((each, i) => each - (i === label ? 1 : 0));

const drawn = (actions) => {
  const place = ([x, y]) => `${(PAD * x).toFixed(1)} ${(PAD * y).toFixed(1)}`;
  const lines = actions.filter(({ points }) => points).map(({ points }) => {
    return `M${(points.length > 1 ? points : [points[0], points[0]]).map(place).join("L")}`;
  });
  const cells = segmentsOf(actions.filter(({ points }) => !points));
  return [...lines, ...cells.map((ends) => `M${ends.map(place).join("L")}`)].join("");
};

function drawFiveSymbols(card, data, tell) {
  const initial = unpackBytes(data.layers, data.sizes);
  const reduced = matchMedia("(prefers-reduced-motion: reduce)");
  const random = seeded(2);
  let drawings = [...LETTERS, "?"].map(() => []); // each a list of actions: {points} of a line or {cell} of the grid
  let [at, example, line, cursor, seed] = [0, false, null, 40, 0];
  let [adapted, milliseconds, logits] = [null, 0, null];

  const helpId = unique("help");
  const small = (className, ...children) =>
    svg("svg", { class: className, viewBox: `0 0 ${PAD} ${PAD}`, "aria-hidden": "true" }, ...children);
  const stroke = () => svg("path", { class: "stroke", d: "" });

  const [ink, cell] = [stroke(), svg("rect", { class: "cell", width: PAD / CELLS, height: PAD / CELLS, rx: 1.5 })];
  const dots = range(0.5, CELLS - 0.5, CELLS).flatMap((row) =>
    range(0.5, CELLS - 0.5, CELLS).map((column) =>
      svg("circle", { class: "grid-dot", cx: (PAD * column) / CELLS, cy: (PAD * row) / CELLS, r: 0.5 }),
    ),
  );
  const invitation = svg("text", { class: "invitation", x: PAD / 2, y: PAD / 2 + 2, "text-anchor": "middle" });
  const pad = svg(
    "svg",
    {
      ...{ class: "pad", viewBox: `0 0 ${PAD} ${PAD}`, tabindex: 0, role: "application" },
      ...{ "aria-label": "Drawing pad", "aria-describedby": helpId },
    },
    ...[...dots, invitation, ink, cell],
  );
  const pixels = Array.from({ length: data.side ** 2 }, (_, i) =>
    svg("rect", { x: i % data.side, y: Math.floor(i / data.side), width: 1.02, height: 1.02, "fill-opacity": 0 }),
  );
  const seen = svg(
    "svg",
    { class: "seen", viewBox: `0 0 ${data.side} ${data.side}`, role: "img", "aria-label": "The drawing in pixels" },
    ...pixels,
  );
  const title = element("p", { className: "mp-panel-title" });
  const verdict = element("p", { className: "mp-panel-title" });
  const facts = element("p", { className: "mp-note" });
  const rows = LETTERS.map((letter, i) => {
    const [path, fill] = [stroke(), element("div", { className: "fill" })];
    const thumb = element("button", { type: "button", className: "thumb" }, small("", path));
    thumb.onclick = () => choose(i);
    const share = element("span", { className: "share" });
    const bar = element("div", { className: "bar", ariaHidden: "true" }, fill);
    const name = element("span", { className: "letter" }, letter);
    return { path, fill, thumb, share, row: element("li", {}, thumb, name, bar, share) };
  });
  const button = (text, className = "") => element("button", { type: "button", className }, text);
  const buttons = { next: button("", "mp-main"), undo: button("Undo"), clear: button("Clear") };
  const others = { own: button("Draw your own five"), show: button("") };

  const { scripts, hand } = data.measured;
  const percent = ([share]) => String(Math.round(100 * share));
  const halves = [scripts, hand].flatMap(({ network, nearest }) => [network[1], nearest[1]]);
  const widest = Math.ceil(1000 * Math.max(...halves)) / 10;
  const help = element(
    "p",
    { className: "mp-note", id: helpId },
    "Draw with the mouse or a finger. With the keyboard: the arrow keys move a square over the grid, Space fills or empties " +
      "it, Backspace undoes, Enter goes on. Press one of the five small pictures to change that symbol.",
  );
  const honest = element(
    "p",
    { className: "mp-note measured" },
    `Tried on ${hand.num_tasks.toLocaleString("en")} sets of five: of 100 hand-like drawings it recognizes `,
    element("b", {}, percent(hand.network)),
    `, and of 100 printed letters of scripts it had never seen, ${percent(scripts.network)}. Comparing the pixels instead ` +
      `recognizes ${percent(hand.nearest)} and ${percent(scripts.nearest)}; guessing would be right 20 times. A program ` +
      `drew the hand-like drawings, with shapes and an unsteadiness other than in training. The 95\u00a0% intervals ` +
      `are ± ${widest.toFixed(1)} or narrower.`,
  );
  card.append(
    element(
      "div",
      { className: "draw" },
      element("div", { className: "pad-area" }, title, pad, element("div", { className: "buttons" }, ...Object.values(buttons))),
      element(
        "div",
        { className: "guess-area" },
        verdict,
        element("ul", { className: "classes" }, ...rows.map(({ row }) => row)),
        element("div", { className: "seen-area" }, seen, facts),
        element("div", { className: "buttons" }, ...Object.values(others)),
      ),
      element("div", { className: "note-area" }, honest, help),
    ),
  );

  const picture = (index) => pictureOf(segmentsOf(drawings[index]), data);
  const complete = () => LETTERS.every((_, i) => drawings[i].length);

  // K gradient steps on the five drawings, from the initialization.
  function adapt() {
    adapted = null;
    if (!complete()) return;
    const begun = performance.now();
    const examples = LETTERS.map((_, i) => [picture(i), i]);
    let layers = initial;
    for (let k = 0; k < data.steps; k++) layers = gradientStep(layers, examples, data.rate, slopeOfCrossEntropy);
    milliseconds = performance.now() - begun;
    adapted = layers;
  }
  function guess() {
    logits = adapted && drawings[SIXTH].length ? forward(adapted, picture(SIXTH)).at(-1) : null;
  }
  const chances = () => logits && softmax(logits);
  const whole = (chance) => `${Math.round(100 * chance)}\u00a0%`;

  function draw() {
    if (!card.isConnected) return;
    const shares = chances();
    const best = shares ? shares.indexOf(Math.max(...shares)) : -1;
    const here = drawings[at];
    ink.setAttribute("d", drawn(here));
    cell.setAttribute("x", (PAD * (cursor % CELLS)) / CELLS);
    cell.setAttribute("y", (PAD * Math.floor(cursor / CELLS)) / CELLS);
    pad.classList.toggle("is-example", example && at === SIXTH);
    invitation.textContent = here.length ? "" : at === SIXTH ? "draw one of the five" : "draw anything";
    rows.forEach(({ path, fill, thumb, share, row }, i) => {
      path.setAttribute("d", drawn(drawings[i]));
      thumb.ariaLabel = `Symbol ${LETTERS[i]}: ${drawings[i].length ? "change it" : "draw it"}`;
      thumb.setAttribute("aria-pressed", at === i);
      thumb.disabled = moving !== 0;
      row.classList.toggle("best", i === best);
      fill.style.width = shares ? `${100 * shares[i]}%` : "0";
      share.textContent = shares ? whole(shares[i]) : "";
    });
    const pixel = picture(at);
    pixels.forEach((rect, i) => rect.setAttribute("fill-opacity", pixel[i].toFixed(3)));
    title.textContent =
      at < SIXTH ? `Draw symbol ${LETTERS[at]}, ${at + 1} of 5` : example ? "An example. Now draw one yourself" : "Draw one of the five again";
    verdict.textContent = shares
      ? `The network says ${LETTERS[best]}: ${whole(shares[best])}`
      : adapted
        ? "Ready to guess"
        : "The five symbols";
    facts.textContent =
      "What the network sees: 14 × 14 pixels, centred and scaled. " +
      (adapted
        ? `Its ${data.steps} gradient steps on the five drawings took ${say(milliseconds, 2)} ms in your browser.`
        : "It adapts as soon as all five are drawn.");
    const next = at < SIXTH ? (nextEmpty() === SIXTH ? "Let it guess" : "Next symbol") : "Draw another";
    buttons.next.textContent = next;
    buttons.next.disabled = buttons.undo.disabled = buttons.clear.disabled = !here.length || moving !== 0;
    others.show.textContent = moving ? "Skip" : "Show me an example";
  }
  const nextEmpty = () => [...LETTERS.keys()].find((i) => i !== at && !drawings[i].length) ?? SIXTH;
  const inWords = () => {
    const shares = chances();
    if (!shares) return title.textContent;
    return `${verdict.textContent}. ${LETTERS.map((letter, i) => `${letter} ${whole(shares[i])}`).join(", ")}.`;
  };

  // What a change of the present drawing means.
  function work() {
    if (at < SIXTH) adapt();
    guess();
    draw();
  }
  const changed = frames(work);
  function choose(index) {
    finish();
    at = index;
    changed.now();
    tell(inWords());
  }
  // A stroke on an example's sixth drawing begins another one.
  function begin() {
    finish();
    if (example && at === SIXTH) drawings[SIXTH] = [];
    if (at === SIXTH) example = false;
  }
  function next() {
    if (!drawings[at].length) return tell("The pad is empty: draw something first.");
    if (at === SIXTH) return clear();
    choose(nextEmpty());
  }
  function undo() {
    begin();
    drawings[at].pop();
    changed.now();
    tell(drawings[at].length ? `Undone. ${inWords()}` : "The pad is empty.");
  }
  function clear() {
    begin();
    drawings[at] = [];
    changed.now();
    tell("The pad is empty.");
  }

  // Example: five symbols and, once more, one of them, at once or as if somebody drew them.
  let [moving, whatFollows] = [0, null];
  function finish() {
    if (!moving) return;
    cancelAnimationFrame(moving);
    moving = 0;
    whatFollows();
  }
  function newExample() {
    const chosen = EXAMPLES.map((symbol, i) => [symbol, seed ? random() : i]);
    seed++;
    const five = chosen.sort(([, one], [, other]) => one - other).slice(0, SIXTH).map(([symbol]) => symbol);
    const again = five[seed === 1 ? 3 : Math.floor(SIXTH * random())];
    return [...five, again].map((symbol) => byHand(symbol, random).map((points) => ({ points })));
  }
  function showAtOnce(all) {
    [drawings, at, example] = [all, SIXTH, true];
    adapt();
    guess();
    draw();
  }
  function showSlowly(all) {
    drawings = all.map(() => []);
    [at, example, adapted, logits] = [0, true, null, null];
    const [each, rest] = [420, 160]; // milliseconds of a drawing, and after it
    const begun = performance.now();
    whatFollows = () => showAtOnce(all);
    const frame = (time) => {
      const passed = Math.max(0, time - begun);
      const present = Math.floor(passed / (each + rest));
      if (present >= all.length) {
        finish();
        return tell(inWords());
      }
      const part = clamp((passed - present * (each + rest)) / each, 0.02, 1);
      const total = all[present].reduce((sum, { points }) => sum + points.length, 0);
      let left = Math.ceil(part * total);
      at = present;
      drawings = all.map((actions, i) => {
        if (i !== present) return i < present ? actions : [];
        return actions.flatMap(({ points }) => {
          const some = points.slice(0, Math.max(left, 0));
          left -= points.length;
          return some.length ? [{ points: some }] : [];
        });
      });
      if (at === SIXTH && !adapted) adapt();
      guess();
      moving = requestAnimationFrame(frame);
      draw();
    };
    moving = requestAnimationFrame(frame);
    draw();
  }

  buttons.next.onclick = next;
  buttons.undo.onclick = undo;
  buttons.clear.onclick = clear;
  others.own.onclick = () => {
    finish();
    drawings = drawings.map(() => []);
    [at, example, adapted] = [0, false, null];
    changed.now();
    tell(inWords());
  };
  others.show.onclick = () => {
    if (moving) {
      finish();
      return tell(inWords());
    }
    const all = newExample();
    if (!reduced.matches) return showSlowly(all);
    showAtOnce(all);
    tell(inWords());
  };

  const placeOf = (event) => {
    const box = pad.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map((x) => clamp(x, 0, 1));
  };
  pad.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || line) return;
    begin();
    pad.setPointerCapture(event.pointerId);
    line = { id: event.pointerId, points: [placeOf(event)] };
    drawings[at].push({ points: line.points });
    changed();
  });
  pad.addEventListener("pointermove", (event) => {
    if (event.pointerId !== line?.id) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length ? events : [event]) {
      const [[x, y], [lastX, lastY]] = [placeOf(each), line.points.at(-1)];
      if (Math.hypot(x - lastX, y - lastY) > 0.01) line.points.push([x, y]);
    }
    changed();
  });
  const release = (event) => {
    if (event.pointerId !== line?.id) return;
    line = null;
    changed.now();
    if (at === SIXTH) tell(inWords());
  };
  pad.addEventListener("pointerup", release);
  pad.addEventListener("pointercancel", release);
  pad.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const where = () => {
      const filled = drawings[at].some((action) => action.cell === cursor);
      return `Column ${(cursor % CELLS) + 1}, row ${Math.floor(cursor / CELLS) + 1}${filled ? ", filled" : ""}`;
    };
    if (move) {
      const place = [cursor % CELLS, Math.floor(cursor / CELLS)].map((each, i) => clamp(each + move[i], 0, CELLS - 1));
      cursor = place[0] + CELLS * place[1];
      draw();
      tell(where());
    } else if (event.key === " ") {
      begin();
      const others = drawings[at].filter((action) => action.cell !== cursor);
      drawings[at] = others.length < drawings[at].length ? others : [...others, { cell: cursor }];
      changed.now();
      tell(at === SIXTH ? `${where()}. ${inWords()}` : where());
    } else if (event.key === "Enter") {
      next();
    } else if (event.key === "Backspace") {
      undo();
    } else {
      return;
    }
    event.preventDefault();
  });

  [drawings, at, example] = [newExample(), SIXTH, true];
  adapt();
  guess();
  return {
    draw,
    redo: () => {
      adapt();
      guess();
      draw();
    },
    stop: () => cancelAnimationFrame(moving),
    state: () => ({
      ...{ at, example, moving: moving !== 0, milliseconds },
      segments: drawings.map(segmentsOf),
      pictures: drawings.map((_, i) => [...picture(i)]),
      logits: logits && [...logits],
      probabilities: logits && [...chances()],
    }),
  };
}

// On a page -----------------------------------------------------------------------------------------------------------

// Calls `work` at most once a frame; `now` does it at once.
function frames(work) {
  let waiting = 0;
  const now = () => {
    cancelAnimationFrame(waiting);
    waiting = 0;
    work();
  };
  return Object.assign(() => (waiting ||= requestAnimationFrame(now)), { now });
}

const PLAYGROUNDS = {
  draw_five_symbols: {
    make: drawFiveSymbols,
    title: "Draw five symbols: the network learns them from one drawing each",
    subtitle:
      "It has never seen your drawings. Its initialization was trained by MAML, so that ten gradient steps on your five " +
      "drawings are enough to recognize a sixth.",
  },
  adapt_a_sine: {
    make: adaptASine,
    title: "Adapt a sine: three initializations, one learning rate",
    subtitle:
      "The networks differ in nothing but where they begin. Each inner step is one gradient step on the loss of your points.",
  },
  perturb_the_problem: {
    make: perturbTheProblem,
    title: "Perturb the problem: a little of the query loss moves the minimum",
    subtitle: "The inner problem is h(φ) + λ/2 (φ − θ)². Its perturbation adds ν f(φ), whose own minimum is at φ\u00a0=\u00a02.",
  },
};

// Puts a playground into `place`. `place.playground` then tells in numbers what is shown: state(). Returns a function
// that ends it.
function mount(place, name, data) {
  const { make, title, subtitle } = PLAYGROUNDS[name];
  const live = element("p", { className: "for-screen-readers" });
  live.setAttribute("role", "status");
  const card = element(
    "div",
    { className: "mp-card", role: "group", ariaLabel: title },
    element("p", { className: "mp-title" }, title),
    element("p", { className: "mp-subtitle" }, subtitle),
  );
  place.classList.add("metalearn-playground", "metalearn-awake");
  place.dataset.lmSuppressShortcuts = true; // else JupyterLab takes the arrow keys and Enter for itself
  place.replaceChildren(card);
  const made = make(card, data, (text) => (live.textContent = text));
  card.append(live);
  place.playground = made;
  const observer = new ResizeObserver(frames(made.draw));
  observer.observe(place);
  return () => {
    observer.disconnect();
    made.stop();
  };
}

function render({ model, el }) {
  const name = model.get("name");
  // JupyterLab hides what stands in for a missing widget by a style sheet, other programs by this.
  if (!document.querySelector(".jp-OutputArea"))
    for (const sentence of document.querySelectorAll(`.metalearn-asleep[data-playground="${name}"]`)) sentence.remove();
  return mount(el, name, model.get("data"));
}

export default { render };
