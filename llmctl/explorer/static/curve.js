// k-epsilon curves of finished runs, published ones beside them, and the pairs behind each point.

import { get } from "./api.js";
import { chart, colour } from "./chart.js";
import { count, h, notice, number, opens, show, token, tokens, visible } from "./dom.js";
import { linkTo, packIds, writeLink } from "./link.js";
import { saveCsv, saveJson, savePng, saves } from "./save.js";

const PAGE = 50;

export function view() {
  const page = new CurvePage();
  return { element: page.element, open: (values) => page.restore(values) };
}

class CurvePage {
  constructor() {
    this.chosen = []; // names: runs, or "published:…"
    this.point = null; // {run, k, offset}
    this.curves = new Map();
    this.examples = new Map(); // by run@k: a few of the pairs that exactly k tokens reached
    this.parts = {
      choose: h("section", { class: "panel" }),
      chart: h("section", { class: "panel", "aria-live": "polite" }),
      pairs: h("section", { class: "panel", hidden: true }),
    };
    this.element = h(
      "div",
      {},
      h(
        "div",
        { class: "head" },
        h("h1", {}, "How many targets stay out of reach?"),
        saves({
          json: () =>
            saveJson(
              "curves",
              this.drawnCurves().map(({ curve }) => curve),
            ),
          csv: () =>
            saveCsv(
              "curves",
              ["curve", "k", "epsilon", "low", "high", "pairs"],
              this.drawnCurves().flatMap(({ curve }) =>
                curve.points.map((p) => [curve.label, p.k, p.value, p.low, p.high, p.n]),
              ),
            ),
          png: () => savePng("curves", [...this.parts.chart.querySelectorAll("svg.chart")], "epsilon by k"),
        }),
      ),
      h(
        "p",
        { class: "lead" },
        "Epsilon(k) is the share of (state, target) pairs for which no control of at most k tokens was found. ",
        "A search can miss a control, so epsilon is an upper bound. Intervals are 95 % intervals.",
      ),
      h(
        "div",
        { class: "grid" },
        h("div", { class: "w4" }, this.parts.choose),
        h("div", { class: "w8 stack" }, this.parts.chart),
        this.parts.pairs,
      ),
    );
  }

  linkValues() {
    return {
      runs: this.chosen.join(","),
      at: this.point ? `${this.point.run}@${this.point.k ?? "none"}@${this.point.offset}` : "",
    };
  }

  keepLink() {
    if (location.hash.startsWith("#/curve")) writeLink("curve", this.linkValues());
  }

  async restore(link) {
    if (
      this.drawn &&
      (!Object.keys(link).length || linkTo("curve", link) === linkTo("curve", this.linkValues()))
    )
      return this.keepLink();
    const [{ runs }, { curves }] = await Promise.all([get("/api/runs"), get("/api/published")]);
    this.runs = runs.filter((run) => run.kind === "reach-curve" && run.is_done);
    this.published = curves;
    for (const curve of curves) this.curves.set(curve.name, curve);
    const known = new Set([...this.runs.map((run) => run.name), ...curves.map((curve) => curve.name)]);
    const asked =
      link.runs === undefined
        ? [...this.runs.slice(0, 1).map((run) => run.name), "published:falcon-7b", "published:llama-7b"]
        : link.runs.split(",").filter(Boolean);
    const missing = asked.filter((name) => !known.has(name));
    if (missing.length) notice(`Not in this runs folder: ${missing.join(", ")}`);
    this.chosen = asked.filter((name) => known.has(name));
    const [run, k, offset] = (link.at ?? "").split("@");
    this.point =
      run && known.has(run) ? { run, k: k === "none" ? null : Number(k), offset: Number(offset) || 0 } : null;
    this.drawn = true;
    await this.load();
    this.draw();
    if (this.point) await this.openPairs();
    this.keepLink();
  }

  async load() {
    await Promise.all(
      this.chosen
        .filter((name) => !this.curves.has(name))
        .map(async (name) => {
          try {
            this.curves.set(name, await get("/api/curve", { run: name }));
          } catch (error) {
            notice(error.message);
            this.chosen = this.chosen.filter((other) => other !== name);
          }
        }),
    );
  }

  drawnCurves() {
    return this.chosen
      .filter((name) => this.curves.has(name))
      .map((name, place) => ({ curve: this.curves.get(name), place }));
  }

  draw() {
    const box = (name, label, note) =>
      h(
        "li",
        {},
        h(
          "label",
          {},
          h("input", {
            type: "checkbox",
            checked: this.chosen.includes(name),
            onchange: async (event) => {
              this.chosen = event.target.checked
                ? [...this.chosen, name]
                : this.chosen.filter((other) => other !== name);
              await this.load();
              this.drawChart();
              this.keepLink();
            },
          }),
          h("span", {}, label, " ", h("small", {}, note)),
        ),
      );
    const named = (curve) => (curve.label.includes("/") ? "" : "next tokens");
    show(
      this.parts.choose,
      h("h2", {}, "Runs"),
      this.runs.length
        ? h(
            "ul",
            { class: "checks", id: "curve-runs" },
            this.runs.map((run) => box(run.name, run.name, run.model)),
          )
        : h(
            "p",
            { class: "empty" },
            "There is no finished curve in the runs folder. ",
            h("code", {}, "llmctl reach curve reach/demo"),
            " makes one in minutes.",
          ),
      h("h2", {}, "Published"),
      h(
        "ul",
        { class: "checks" },
        this.published.map((curve) => box(curve.name, curve.label, named(curve))),
      ),
      h(
        "p",
        { class: "note" },
        "Published curves were measured on other states, with other tokenizers and schedules. ",
        "They show the usual range, not which model is more controllable. ",
        "Their intervals assume that pairs are independent.",
      ),
    );
    this.drawChart();
  }

  drawChart() {
    const drawn = this.drawnCurves();
    if (!drawn.length)
      return show(
        this.parts.chart,
        h("h2", {}, "Epsilon by k"),
        h("p", { class: "empty" }, "Choose a run or a published curve on the left."),
      );
    const shift = (place) => (place - (drawn.length - 1) / 2) * 0.045; // so that intervals do not hide one another
    const line = (curve, place, points, more) => ({
      colour: colour(place),
      label: `${curve.label}${curve.pairs ? `, n = ${count(curve.pairs)}` : ""}`,
      curve,
      ...more,
      points: points.map((p) => ({ ...p, x: p.k + shift(place), y: p.value })),
    });
    const series = drawn.flatMap(({ curve, place }) => [
      line(curve, place, curve.points, { width: curve.is_published ? 1.4 : 2.4, dashed: curve.is_published }),
      ...(curve.baseline
        ? [
            line(curve, place, curve.baseline, {
              label: `${curve.label}, random controls at equal cost`,
              dashed: true,
              opacity: 0.45,
              isBaseline: true,
            }),
          ]
        : []),
    ]);
    const ks = [...new Set(series.flatMap((entry) => entry.points.map((p) => p.k)))].sort((a, b) => a - b);
    this.loadExamples(drawn);
    const examples = (p, entry) =>
      entry.curve.is_published || entry.isBaseline
        ? []
        : (this.examples.get(`${entry.curve.name}@${p.k}`)?.pairs ?? []).map((pair) =>
            h(
              "span",
              { "data-pair": pair.id },
              visible(tail(pair.state_text, 34)),
              " → ",
              token({ id: "", text: pair.target_text }),
            ),
          );
    const tip = (p, entry) =>
      [
        h("b", {}, entry.label),
        `k = ${p.k}: epsilon ${number(p.value, 3)} [${number(p.low, 3)}, ${number(p.high, 3)}]`,
        p.methods
          ? Object.entries(p.methods)
              .map(([name, n]) => `${n} by ${name}`)
              .join(", ")
          : "",
        ...examples(p, entry),
        entry.curve.is_published || entry.isBaseline ? "" : "click to list all its pairs",
      ].filter(Boolean);
    const figure = chart({
      height: 420,
      label: "Epsilon by k",
      x: {
        label: "largest number of control tokens, k",
        domain: [Math.min(...ks) - 0.3, Math.max(...ks) + 0.3],
        ticks: ks,
      },
      y: { label: "epsilon: share not reached", domain: [0, 1] },
      series,
      tip,
      click: (p, entry) => {
        if (!entry.curve.is_published && !entry.isBaseline) this.choosePoint(entry.curve.name, p.k);
      },
    });
    const own = drawn.filter(({ curve }) => !curve.is_published);
    show(
      this.parts.chart,
      h("h2", {}, "Epsilon by k"),
      figure,
      own.map(({ curve }) =>
        h(
          "p",
          { class: "note" },
          h("b", {}, curve.label),
          `: ${count(curve.pairs)} pairs at ${count(curve.states)} states, ${curve.model ?? ""}${
            curve.seeds
              ? `, seeds ${Object.entries(curve.seeds)
                  .map(([name, seed]) => `${name} ${seed}`)
                  .join(", ")}`
              : ""
          }. `,
          h(
            "button",
            { class: "link", type: "button", onclick: () => this.choosePoint(curve.name, null) },
            "Show the pairs that were not reached",
          ),
        ),
      ),
    );
  }

  /** A few pairs of every point, so that a hover shows them at once. */
  loadExamples(drawn) {
    for (const { curve } of drawn.filter((entry) => !entry.curve.is_published)) {
      for (const { k } of curve.points) {
        const key = `${curve.name}@${k}`;
        if (this.examples.has(key)) continue;
        this.examples.set(key, null);
        get("/api/pairs", { run: curve.name, k, limit: 3 }).then(
          (found) => this.examples.set(key, found),
          () => {},
        );
      }
    }
  }

  choosePoint(run, k) {
    this.point = { run, k, offset: 0 };
    this.openPairs();
    this.keepLink();
  }

  async openPairs() {
    const { run, k, offset } = this.point;
    const { pairs: box } = this.parts;
    box.hidden = false;
    if (!box.childElementCount) show(box, h("p", { class: "soft" }, "Reading the pairs …"));
    let found;
    try {
      found = await get("/api/pairs", { run, k: k ?? "none", offset, limit: PAGE });
    } catch (error) {
      return show(box, h("p", { class: "error" }, error.message));
    }
    const turn = (to) => {
      this.point = { run, k, offset: to };
      this.openPairs();
      this.keepLink();
    };
    const end = Math.min(found.offset + PAGE, found.of);
    const title =
      k === null
        ? `${run}: not reached`
        : k === 0
          ? `${run}: the state alone suffices`
          : `${run}: reached by exactly ${k} token${k > 1 ? "s" : ""}`;
    show(
      box,
      h(
        "div",
        { class: "head" },
        h("h2", {}, title),
        h(
          "div",
          { class: "row center" },
          [...Object.keys(found.counts)]
            .sort((a, b) => (a === "none") - (b === "none") || a - b)
            .map((at) =>
              h(
                "button",
                {
                  type: "button",
                  "aria-pressed": String(at === String(k ?? "none")),
                  class: "quiet",
                  onclick: () => this.choosePoint(run, at === "none" ? null : Number(at)),
                },
                `${at === "none" ? "not reached" : `k = ${at}`} (${count(found.counts[at])})`,
              ),
            ),
        ),
      ),
      found.of
        ? h(
            "div",
            { class: "scroll tall", tabindex: 0, "aria-label": "Pairs" },
            h(
              "table",
              { id: "pairs" },
              h(
                "thead",
                {},
                h(
                  "tr",
                  {},
                  ["State", "Target", "Control", "By"].map((name) => h("th", {}, name)),
                  ["Rank without control", "Loss without control", "Loss with control"].map((name) =>
                    h("th", { class: "n" }, name),
                  ),
                ),
              ),
              h(
                "tbody",
                {},
                found.pairs.map((pair) =>
                  h(
                    "tr",
                    opens({ title: "Open in Search" }, () => this.search(pair)),
                    h("td", {}, h("span", { class: "soft" }, visible(tail(pair.state_text)))),
                    h("td", {}, token({ id: pair.target_ids.join(" "), text: pair.target_text })),
                    h(
                      "td",
                      {},
                      tokens(
                        (pair.control_ids ?? []).map((id, place) => ({
                          id,
                          text: pair.control_tokens?.[place] ?? "",
                        })),
                      ),
                    ),
                    h("td", {}, pair.method),
                    h("td", { class: "n" }, count(pair.base_rank)),
                    h("td", { class: "n" }, number(pair.base_loss)),
                    h("td", { class: "n" }, number(pair.loss)),
                  ),
                ),
              ),
            ),
          )
        : h("p", { class: "empty" }, "There are no such pairs."),
      h(
        "div",
        { class: "row center" },
        h(
          "button",
          { type: "button", disabled: !offset, onclick: () => turn(Math.max(0, offset - PAGE)) },
          "Previous",
        ),
        h(
          "button",
          { type: "button", disabled: end >= found.of, onclick: () => turn(offset + PAGE) },
          "Next",
        ),
        h(
          "span",
          { class: "note" },
          found.of
            ? `${count(found.offset + 1)} to ${count(end)} of ${count(found.of)}; click a pair to open it in Search.`
            : "",
        ),
      ),
    );
  }

  search(pair) {
    const curve = this.curves.get(this.point.run);
    const position = pair.position ?? curve?.position ?? "before";
    location.hash = linkTo("search", {
      m: curve?.model,
      a: curve?.adapter,
      s: pair.state_text,
      p: position === "before" ? "" : position,
      t: packIds([pair.target_ids]),
      w: packIds([pair.control_ids ?? []]),
      k: Math.max(1, pair.k ?? 4),
    });
  }
}

const tail = (text, most = 90) => (text.length > most ? `… ${text.slice(2 - most)}` : text);
