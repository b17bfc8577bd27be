// The self-attention bound: layer by head, the least k that is not ruled out.

import { post } from "./api.js";
import { hideTip, showTip } from "./chart.js";
import { count, debounce, field, h, number, s, select, show, tokens } from "./dom.js";
import { linkTo, writeLink } from "./link.js";
import { choice, numberField, POSITIONS, problemForm, stateOrder, viewOf } from "./problem.js";
import { saveCsv, saveJson, savePng, saves } from "./save.js";

const START = { state: "The capital of France is", position: "before", relative: 1, show: "reach" };
const SHOWN = [
  ["reach", "what one token can change"],
  ["least", "smallest k not ruled out"],
];
// Cividis: even in lightness, and the same to colour-blind eyes.
const STOPS = [
  "#00224e",
  "#123570",
  "#3b496c",
  "#575d6d",
  "#707173",
  "#8a8678",
  "#a59c74",
  "#c3b369",
  "#e1cc55",
  "#fee838",
];

export const view = () => viewOf(BoundPage);

class BoundPage {
  constructor(known) {
    this.known = known;
    this.values = { ...START };
    this.answer = null;
    this.parts = {
      form: h("section", { class: "panel stack" }),
      map: h("section", { class: "panel", "aria-live": "polite" }),
    };
    this.ask = debounce(500, () => this.compute());
    this.element = h(
      "div",
      {},
      h(
        "div",
        { class: "head" },
        h("h1", {}, "What can an attention head rule out?"),
        saves({
          json: () => saveJson("bound", this.answer),
          csv: () =>
            saveCsv(
              "bound",
              [
                "layer",
                "head",
                "least_k",
                "reach",
                "log_g",
                "max_logit",
                "max_value",
                "output_norm",
                "desired",
                "log_paper_bound",
              ],
              (this.answer?.heads ?? []).map((b) => [
                b.layer,
                b.head,
                b.least_k,
                b.reach,
                b.log_g,
                b.max_logit,
                b.max_value,
                b.output_norm,
                b.desired,
                b.log_paper_bound,
              ]),
            ),
          png: () =>
            savePng(
              "bound",
              [...this.parts.map.querySelectorAll("svg.chart")],
              `${this.title()}, at “${this.values.state}”`,
            ),
        }),
      ),
      h(
        "p",
        { class: "lead" },
        "A control changes the output of an attention head only as far as the head attends to it. ",
        "The bound is the smallest number of control tokens that could change the output as far as you ask.",
      ),
      h(
        "div",
        { class: "grid" },
        h("div", { class: "w4" }, this.parts.form),
        h("div", { class: "w8" }, this.parts.map),
      ),
    );
  }

  linkValues() {
    const v = this.values;
    return {
      m: v.model,
      a: v.adapter,
      s: v.state,
      p: v.position === "before" ? "" : v.position,
      r: v.relative,
      show: v.show === "reach" ? "" : v.show,
    };
  }

  keepLink() {
    if (location.hash.startsWith("#/bound")) writeLink("bound", this.linkValues());
  }

  async restore(link) {
    if (
      this.drawn &&
      (!Object.keys(link).length || linkTo("bound", link) === linkTo("bound", this.linkValues()))
    )
      return this.keepLink();
    this.values = {
      ...START,
      ...Object.fromEntries(
        Object.entries({
          model: link.m,
          adapter: link.a,
          state: link.s,
          position: choice(POSITIONS, link.p),
          show: choice(SHOWN, link.show),
        }).filter(([, value]) => value),
      ),
    };
    if (Number(link.r) > 0) this.values.relative = Math.min(1000, Number(link.r));
    const changed = () => {
      this.keepLink();
      this.ask();
    };
    show(
      this.parts.form,
      problemForm(this.known, this.values, changed),
      field(
        "Show",
        select(SHOWN, this.values.show, (event) => {
          this.values.show = event.target.value;
          this.keepLink();
          if (this.answer) this.draw();
        }),
      ),
      numberField(
        "Desired change, orthogonal to the output, in norms of the output",
        this.values,
        "relative",
        {
          min: 0.01,
          max: 1000,
          step: 0.1,
          changed,
        },
      ),
    );
    this.drawn = true;
    this.keepLink();
    await this.compute();
  }

  async compute() {
    this.turn = (this.turn ?? 0) + 1;
    const mine = this.turn;
    if (!this.values.state) return show(this.parts.map, h("p", { class: "empty" }, "Type a state."));
    if (!this.answer) show(this.parts.map, h("p", { class: "empty" }, "Computing the bound of every head …"));
    try {
      const answer = await post("/api/bound", { ...stateOrder(this.values), relative: this.values.relative });
      if (mine !== this.turn) return;
      this.answer = answer;
      this.draw();
    } catch (error) {
      if (mine === this.turn) show(this.parts.map, h("p", { class: "error", role: "alert" }, error.message));
    }
  }

  title() {
    return this.values.show === "least"
      ? "Smallest k that is not ruled out"
      : "Largest change that one control token could make, in norms of the output";
  }

  draw() {
    const { heads, statement, state, relative } = this.answer;
    const free = heads.filter((b) => b.least_k === 1).length;
    const never = heads.filter((b) => b.least_k === null).length;
    const svg = s("svg", {
      class: "chart",
      role: "img",
      tabindex: 0,
      "aria-label": "Smallest k by layer and head; move with the arrow keys",
    });
    const figure = h("figure", {}, svg);
    const watcher = new ResizeObserver(() =>
      figure.isConnected ? drawMap(svg, heads, this.values.show) : watcher.disconnect(),
    );
    watcher.observe(figure);
    show(
      this.parts.map,
      h("h2", {}, `${this.title()}, by layer and head`),
      h(
        "p",
        { class: "note" },
        `For a change of ${number(relative)} times the norm of the output, `,
        `${count(free)} of ${count(heads.length)} heads rule out no k`,
        never ? ` and ${count(never)} rule out every k` : "",
        ". Computed at the last token of ",
        tokens(state.slice(-8)),
      ),
      figure,
      h("p", { class: "note" }, statement),
    );
  }
}

function drawMap(svg, heads, mode) {
  const layers = Math.max(...heads.map((b) => b.layer)) + 1;
  const across = Math.max(...heads.map((b) => b.head)) + 1;
  const width = Math.max(svg.parentElement.clientWidth, 220);
  const [left, right, top, foot] = [48, 8, 6, 78];
  const cell = Math.max(11, Math.min(22, 620 / layers));
  const wide = (width - left - right) / across;
  const height = top + layers * cell + foot;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  const value = mode === "least" ? (b) => b.least_k : (b) => b.reach;
  const logs = heads
    .map(value)
    .filter((v) => v > 0)
    .map(Math.log10);
  const low = mode === "least" ? 0 : Math.min(...logs);
  const high = Math.max(low + 0.3, mode === "least" ? 1 : -Infinity, ...logs);
  const fill = (b) =>
    value(b) === null ? "#d55e00" : shade((Math.log10(Math.max(10 ** low, value(b))) - low) / (high - low));
  const name = (log) =>
    mode === "least" ? count(Math.round(10 ** log)) : String(+(10 ** log).toPrecision(3));
  const at = (b) => ({ x: left + b.head * wide, y: top + b.layer * cell });
  const every = (n, size, gap) =>
    Array.from({ length: n }, (_, place) => place).filter((place) => place % Math.ceil(gap / size) === 0);
  const foots = top + layers * cell;
  const bar = Math.min(260, width - left - right - 60);
  show(
    svg,
    heads.map((b) =>
      s("rect", { ...at(b), width: Math.max(wide - 1, 1), height: Math.max(cell - 1, 1), fill: fill(b) }),
    ),
    s(
      "g",
      { class: "axis" },
      every(layers, cell, 18).map((layer) =>
        s("text", { x: left - 7, y: top + layer * cell + cell / 2 + 4, "text-anchor": "end" }, layer),
      ),
      every(across, wide, 26).map((head) =>
        s("text", { x: left + head * wide + wide / 2, y: foots + 14, "text-anchor": "middle" }, head),
      ),
      s(
        "text",
        { class: "title", x: left + (across * wide) / 2, y: foots + 30, "text-anchor": "middle" },
        "head",
      ),
      s(
        "text",
        {
          class: "title",
          transform: `translate(12 ${top + (layers * cell) / 2}) rotate(-90)`,
          "text-anchor": "middle",
        },
        "layer",
      ),
      Array.from({ length: 60 }, (_, place) =>
        s("rect", {
          x: left + (place / 60) * bar,
          y: foots + 42,
          width: bar / 60 + 0.6,
          height: 10,
          fill: shade(place / 59),
        }),
      ),
      s("text", { x: left, y: foots + 68 }, `${mode === "least" ? "smallest k " : ""}${name(low)}`),
      s("text", { x: left + bar, y: foots + 68, "text-anchor": "end" }, `${name(high)} (log)`),
      heads.some((b) => value(b) === null) && [
        s("rect", { x: left + bar + 14, y: foots + 42, width: 12, height: 10, fill: "#d55e00" }),
        s("text", { x: left + bar + 30, y: foots + 51 }, "no k"),
      ],
    ),
  );
  addCursor(svg, heads, { at, wide, cell, left, top, across });
}

function shade(share) {
  const place = Math.max(0, Math.min(0.9999, share)) * (STOPS.length - 1);
  const [a, b] = [STOPS[Math.floor(place)], STOPS[Math.floor(place) + 1]].map((stop) =>
    [1, 3, 5].map((at) => parseInt(stop.slice(at, at + 2), 16)),
  );
  return `rgb(${a.map((value, channel) => Math.round(value + (b[channel] - value) * (place % 1))).join(" ")})`;
}

function addCursor(svg, heads, { at, wide, cell, left, top, across }) {
  const byPlace = new Map(heads.map((b) => [b.layer * across + b.head, b]));
  const ring = s("rect", {
    class: "ring",
    "data-cursor": true,
    width: wide,
    height: cell,
    visibility: "hidden",
  });
  svg.append(ring);
  let active = null;
  const light = (b) => {
    active = b ?? null;
    if (!b) {
      ring.setAttribute("visibility", "hidden");
      return hideTip();
    }
    const { x, y } = at(b);
    ring.setAttribute("x", x);
    ring.setAttribute("y", y);
    ring.setAttribute("visibility", "visible");
    const frame = svg.getBoundingClientRect();
    showTip(
      frame.left + x + wide,
      frame.top + y,
      h("b", {}, `layer ${b.layer}, head ${b.head}`),
      b.least_k === null
        ? "no number of control tokens suffices"
        : b.least_k === 1
          ? "nothing is ruled out"
          : `fewer than ${count(b.least_k)} control tokens cannot do it`,
      `one token could change it by ${number(b.reach)} times the norm of the output`,
      `desired change ${number(b.desired, 3)}, norm of the output ${number(b.output_norm, 3)}`,
      `largest attention logit of a control ${number(b.max_logit, 1)}, log g ${number(b.log_g, 1)}`,
    );
  };
  svg.onpointermove = svg.onclick = (event) => {
    const frame = svg.getBoundingClientRect();
    const [head, layer] = [
      Math.floor((event.clientX - frame.left - left) / wide),
      Math.floor((event.clientY - frame.top - top) / cell),
    ];
    light(head >= 0 && head < across ? byPlace.get(layer * across + head) : null);
  };
  svg.onpointerleave = svg.onblur = () => light(null);
  svg.onkeydown = (event) => {
    const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (!step) return event.key === "Escape" ? light(null) : undefined;
    event.preventDefault();
    const from = active ?? heads[0];
    light(
      active
        ? (byPlace.get(
            (from.layer + step[0]) * across + Math.max(0, Math.min(across - 1, from.head + step[1])),
          ) ?? from)
        : from,
    );
  };
}
