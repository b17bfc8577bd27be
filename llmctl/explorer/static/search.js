// The search view: pose a problem, watch it being solved.

import { isBusy, post, session } from "./api.js";
import { chart, colour, span } from "./chart.js";
import {
  count,
  debounce,
  duration,
  field,
  h,
  notice,
  number,
  opens,
  s,
  select,
  show,
  textOf,
  token,
  tokens,
  visible,
} from "./dom.js";
import { linkTo, packIds, unpackIds, writeLink } from "./link.js";
import { choice, numberField, POSITIONS, problemForm, stateOrder, viewOf } from "./problem.js";
import { saveCsv, saveJson, savePng, saves } from "./save.js";
import { combo, distribution, Targets } from "./targets.js";

const METHODS = [
  ["default", "GCG, steps by base loss (default)"],
  ["published", "published schedule"],
  ["greedy", "greedy, leftwards"],
  ["gcg", "GCG at every k"],
  ["beam", "beam"],
  ["random", "random controls"],
];
const CONTROLS = [
  ["any", "any tokens"],
  ["printable", "printable tokens"],
];
const START = {
  state: "The capital of France is",
  position: "before",
  k: 4,
  method: "default",
  controls: "any",
  budget: 4000,
  seed: 0,
};

export const view = () => viewOf(SearchPage);

class SearchPage {
  constructor(known) {
    this.known = known;
    this.values = { ...START };
    this.answer = null;
    this.rows = []; // one a target: {target, steps, best, progress, result}
    this.chosen = 0;
    this.job = null;
    this.state = "idle";
    this.targets = new Targets(known.limits.targets, () => {
      this.drawDistribution();
      this.keepLink();
      this.drawButtons();
    });
    this.parts = {
      problem: h("section", { class: "panel" }),
      next: h("section", { class: "panel", "aria-live": "polite" }),
      choose: h("section", { class: "panel stack" }),
      found: h("section", { class: "panel", hidden: true }),
      look: h("section", { hidden: true }),
    };
    this.buttons = h("div", { class: "row center" });
    this.progress = h("div", { class: "stack" });
    this.element = h(
      "div",
      {},
      h("div", { class: "head" }, h("h1", {}, "Which prompt makes the model say it?"), this.saves()),
      h(
        "p",
        { class: "lead" },
        "The state is text that the model must read. The search looks for the shortest control, ",
        "tokens added to the state, that makes greedy decoding emit the target.",
      ),
      h(
        "div",
        { class: "grid" },
        h("div", { class: "w5 stack" }, this.parts.problem, this.parts.choose),
        h("div", { class: "w7" }, this.parts.next),
        this.parts.found,
        this.parts.look,
      ),
    );
    this.askNext = debounce(350, () => this.next());
    session.listen("search", (news) => this.hear(news));
  }

  saves() {
    return saves({
      json: () =>
        saveJson("search", {
          ...this.values,
          targets: this.targets.list,
          results: this.rows.map(({ target, steps, result }) => ({ target, steps, result })),
        }),
      csv: () =>
        saveCsv(
          "search",
          [
            "target",
            "verdict",
            "k",
            "witness",
            "witness_ids",
            "base_rank",
            "base_loss",
            "loss",
            "method",
            "controls_scored",
            "forward_tokens",
            "holds_as_text",
          ],
          this.rows.map(({ target, result: r }) => [
            textOf(target),
            r?.verdict,
            r?.k,
            r && textOf(r.control),
            r?.control_ids?.join(" "),
            r?.base_rank,
            r?.base_loss,
            r?.loss,
            r?.method,
            r?.forwards,
            r?.forward_tokens,
            r?.roundtrips,
          ]),
        ),
      png: () =>
        savePng(
          "search",
          [...this.parts.look.querySelectorAll("svg.chart")],
          `${this.values.state} → ${textOf(this.rows[this.chosen]?.target ?? [])}`,
        ),
    });
  }

  /** Take over a link; a link to what is shown already changes nothing. */
  async restore(link) {
    if (this.drawn && linkTo("search", link) === linkTo("search", this.linkValues())) return;
    if (this.drawn && !Object.keys(link).length) return this.keepLink();
    const wanted = {
      ...START,
      ...Object.fromEntries(
        Object.entries({
          model: link.m,
          adapter: link.a,
          state: link.s,
          position: choice(POSITIONS, link.p),
          method: choice(METHODS, link.x),
          controls: choice(CONTROLS, link.c),
        }).filter(([, value]) => value),
      ),
    };
    for (const [key, name, least] of [
      ["k", "k", 1],
      ["b", "budget", 1],
      ["seed", "seed", 0],
    ]) {
      if (link[key] && Number.isFinite(Number(link[key])))
        wanted[name] = Math.max(least, Math.round(Number(link[key])));
    }
    wanted.k = Math.min(wanted.k, this.known.limits.k);
    wanted.seed = Math.min(wanted.seed, 2 ** 31);
    wanted.budget = Math.min(wanted.budget, this.known.limits.budget);
    this.values = wanted;
    this.stop();
    this.draw();
    const ids = unpackIds(link.t);
    this.targets.set(ids.map((list) => list.map((id) => ({ id, text: `#${id}` }))));
    await this.next();
    if (ids.length) await this.restoreTargets(ids, unpackIds(link.w));
  }

  /** Ask again for the targets of a link, with their witnesses where it has some. */
  async restoreTargets(ids, witnesses) {
    const named = [];
    const rows = [];
    for (const [place, target] of ids.entries()) {
      try {
        const found = await post("/api/witness", {
          ...stateOrder(this.values),
          target,
          control: witnesses[place] ?? [],
        });
        named.push(found.target);
        rows.push({
          target: found.target,
          steps: [],
          best: found,
          base_loss: found.base_loss,
          base_rank: found.base_rank,
          result: this.recalled(found),
        });
      } catch (error) {
        notice(error.message);
      }
    }
    this.targets.set(named);
    if (witnesses.length) {
      this.rows = rows;
      this.chosen = 0;
      this.drawFound();
    }
    this.drawDistribution();
    this.drawButtons();
  }

  /** A witness of a link, as the result that it was: asked again just now. */
  recalled(found) {
    return {
      verdict: found.is_hit ? "reached" : "unknown",
      k: found.is_hit ? found.control.length : null,
      control: found.control,
      control_ids: found.control.map((entry) => entry.id),
      base_rank: found.base_rank,
      base_loss: found.base_loss,
      loss: found.loss,
      method: "from the link",
      forwards: null,
      forward_tokens: null,
      roundtrips: null,
      note: "checked again",
    };
  }

  linkValues() {
    const v = this.values;
    const done = this.rows.length === this.targets.list.length && this.rows.some((row) => row.result);
    return {
      m: v.model,
      a: v.adapter,
      s: v.state,
      p: v.position === "before" ? "" : v.position,
      t: packIds(this.targets.list.map((target) => target.map((entry) => entry.id))),
      w: done ? packIds(this.rows.map((row) => row.result?.control_ids ?? [])) : "",
      k: v.k,
      x: v.method === "default" ? "" : v.method,
      c: v.controls === "any" ? "" : v.controls,
      b: v.budget,
      seed: v.seed || "",
    };
  }

  keepLink() {
    if (location.hash === "" || location.hash.startsWith("#/search")) writeLink("search", this.linkValues());
  }

  draw() {
    const { limits } = this.known;
    const changed = () => {
      this.forget();
      this.keepLink();
      this.askNext();
    };
    const kept = () => this.keepLink();
    show(this.parts.problem, problemForm(this.known, this.values, changed));
    show(
      this.parts.choose,
      h("div", {}, h("span", { class: "label" }, "Targets: what it should say next"), this.targets.element),
      combo(this.values, this.targets, this.known),
      h(
        "div",
        { class: "row" },
        numberField("Tokens, k", this.values, "k", { min: 1, max: limits.k, changed: kept }),
        numberField("Budget, controls", this.values, "budget", { min: 1, max: limits.budget, changed: kept }),
        numberField("Seed", this.values, "seed", { min: 0, max: 2 ** 31, changed: kept }),
      ),
      h(
        "div",
        { class: "row" },
        field(
          "Method",
          select(METHODS, this.values.method, (event) => {
            this.values.method = event.target.value;
            kept();
          }),
        ),
        field(
          "Controls of",
          select(CONTROLS, this.values.controls, (event) => {
            this.values.controls = event.target.value;
            kept();
          }),
        ),
      ),
      this.buttons,
      this.progress,
    );
    this.drawn = true;
    this.drawButtons();
    this.drawFound();
  }

  /** Results belong to the problem that they answer. */
  forget() {
    this.stop();
    this.rows = [];
    this.drawFound();
  }

  async next() {
    this.asking?.abort();
    this.asking = new AbortController();
    if (!this.values.state) {
      return show(
        this.parts.next,
        h("h2", {}, "Next token"),
        h("p", { class: "empty" }, "Type a state to see what the model would say next."),
      );
    }
    if (!this.answer)
      show(this.parts.next, h("h2", {}, "Next token"), h("p", { class: "empty" }, "Loading the model …"));
    try {
      this.answer = await post("/api/next", { ...stateOrder(this.values), top: 16 }, this.asking.signal);
      this.drawDistribution();
    } catch (error) {
      if (error.name === "AbortError") return;
      show(
        this.parts.next,
        h("h2", {}, "Next token"),
        h("p", { class: "error", role: "alert" }, error.message),
      );
    }
  }

  drawDistribution() {
    if (!this.answer) return;
    const focused = [...this.parts.next.querySelectorAll("button")].indexOf(document.activeElement);
    show(
      this.parts.next,
      h("h2", {}, "Next token without a control"),
      h("p", { class: "note" }, "Click a token to make it a target."),
      distribution(this.answer, this.targets),
    );
    if (focused >= 0) this.parts.next.querySelectorAll("button")[focused]?.focus();
  }

  drawButtons() {
    const runs = isBusy(this.state);
    show(
      this.buttons,
      h(
        "button",
        {
          class: "primary",
          type: "button",
          id: "start",
          disabled: runs || !this.targets.list.length || !this.values.state,
          onclick: () => this.start(),
        },
        "Search",
      ),
      runs &&
        h(
          "button",
          {
            type: "button",
            id: "pause",
            disabled: !["running", "paused"].includes(this.state),
            onclick: () => session.send({ do: this.state === "paused" ? "go-on" : "pause", kind: "search" }),
          },
          this.state === "paused" ? "Resume" : "Pause",
        ),
      runs && h("button", { type: "button", id: "stop", onclick: () => this.stop() }, "Stop"),
      h(
        "span",
        { class: "soft", id: "search-state" },
        {
          idle: "",
          starting: "starting …",
          waiting: `waiting, place ${this.place ?? ""}`,
          running: "searching …",
          paused: "paused",
          done: "done",
          stopped: "stopped",
          failed: "failed",
          lost: "the connection was lost, so the search was stopped",
        }[this.state] ?? "",
      ),
    );
  }

  async start() {
    this.rows = this.targets.list.map((target) => ({ target, steps: [] }));
    this.chosen = 0;
    this.follow = true;
    this.state = "starting";
    this.drawButtons();
    this.drawFound();
    const { k, method, controls, budget, seed } = this.values;
    try {
      this.job = session.name("search");
      await session.start("search", this.job, {
        ...stateOrder(this.values),
        targets: this.targets.list.map((target) => target.map((entry) => entry.id)),
        k,
        method,
        controls,
        budget,
        seed,
      });
    } catch (error) {
      this.state = "failed";
      notice(error.message);
      this.drawButtons();
    }
  }

  stop() {
    if (isBusy(this.state)) session.send({ do: "stop", kind: "search" });
  }

  hear(news) {
    if (news.event === "lost") {
      if (isBusy(this.state)) this.state = "lost";
      return this.drawButtons();
    }
    if (news.job !== this.job) return;
    const row = this.rows[news.place];
    if (news.event === "state") {
      [this.state, this.place] = [news.state, news.place];
      if (news.error) notice(news.error);
      if (["done", "stopped", "failed"].includes(news.state)) {
        show(this.progress);
        this.keepLink();
      }
      this.drawButtons();
    } else if (news.event === "refused") {
      this.state = "failed";
      this.drawButtons();
    } else if (row && news.event === "begin") {
      Object.assign(row, { base_loss: news.base_loss, base_rank: news.base_rank });
      if (this.follow) this.chosen = news.place;
    } else if (row && news.event === "step") {
      if (news.best) row.best = news.best;
      row.steps.push({
        method: news.method,
        k: news.k,
        loss: news.loss,
        rank: row.best?.rank,
        forwards: news.forwards,
        is_hit: news.is_hit,
        is_best: Boolean(news.best),
      });
    } else if (row && news.event === "progress") {
      row.progress = news;
      return this.drawProgress(row);
    } else if (row && news.event === "result") {
      row.result = { ...news.result, note: news.note };
      if (news.best) row.best = news.best;
    }
    if (row) this.drawFound();
  }

  drawProgress({ progress: p, target }) {
    const share = p.of && p.of < 2 ** 31 ? Math.min(1, p.forwards / p.of) : 0;
    show(
      this.progress,
      h(
        "div",
        {
          class: "meter",
          role: "progressbar",
          "aria-valuemin": 0,
          "aria-valuemax": 100,
          "aria-valuenow": Math.round(share * 100),
          "aria-label": "Share of the plan",
        },
        s("svg", { preserveAspectRatio: "none" }, s("rect", { width: `${share * 100}%`, height: "100%" })),
      ),
      h(
        "p",
        { class: "note" },
        token({ id: "", text: textOf(target) }),
        ` ${count(p.forwards)} controls scored in ${duration(p.seconds)}`,
        p.left === null ? "" : `; at most ${duration(p.left)} left`,
      ),
    );
  }

  drawFound() {
    const { found, look } = this.parts;
    found.hidden = look.hidden = !this.rows.length;
    if (!this.rows.length) return;
    const choose = (place) => () => {
      this.chosen = place;
      this.follow = false;
      this.drawFound();
    };
    show(
      found,
      h("h2", {}, "Verdicts"),
      h(
        "div",
        { class: "scroll" },
        h(
          "table",
          { id: "verdicts" },
          h(
            "thead",
            {},
            h(
              "tr",
              {},
              ["Target", "Verdict", "k", "Witness"].map((name) => h("th", {}, name)),
              ["Rank without control", "Loss without control", "Loss with control", "Controls scored"].map(
                (name) => h("th", { class: "n" }, name),
              ),
              h("th", {}, "By"),
            ),
          ),
          h(
            "tbody",
            {},
            this.rows.map((row, place) => this.verdictRow(row, place, choose(place))),
          ),
        ),
      ),
      h(
        "p",
        { class: "note" },
        "Reached: greedy decoding of the prompt alone emitted the target. ",
        "Unknown: no control was found within this budget. Losses are in nats.",
      ),
    );
    show(look, this.detail(this.rows[this.chosen] ?? this.rows[0]));
  }

  verdictRow(row, place, open) {
    const { result: r, best } = row;
    const word = r ? r.verdict : row.steps.length ? "searching" : "–";
    return h(
      "tr",
      opens({ "aria-selected": String(place === this.chosen) }, open),
      h("td", {}, row.target.map(token)),
      h(
        "td",
        { class: `verdict ${r?.verdict ?? ""}` },
        word,
        r?.note ? h("small", { class: "note" }, ` ${r.note}`) : "",
      ),
      h("td", {}, r ? (r.k ?? "–") : ""),
      h(
        "td",
        {},
        r?.verdict === "reached"
          ? tokens(r.control)
          : best
            ? h("span", { class: "soft" }, "closest ", tokens(r?.control ?? best.control))
            : "",
      ),
      [
        count(row.base_rank),
        number(row.base_loss),
        number(r ? r.loss : best?.loss),
        count(r?.forwards ?? row.steps.at(-1)?.forwards),
      ].map((text) => h("td", { class: "n" }, text)),
      h(
        "td",
        {},
        r?.method ?? row.steps.at(-1)?.method ?? "",
        r?.roundtrips === false && r.verdict === "reached" ? h("small", { class: "warn" }, " ids only") : "",
      ),
    );
  }

  detail(row) {
    const target = visible(textOf(row.target));
    return h(
      "div",
      { class: "grid" },
      h(
        "section",
        { class: "panel w6" },
        h("h2", {}, "Best control so far"),
        row.best ? this.best(row) : h("p", { class: "empty" }, "No control has been scored yet."),
      ),
      h(
        "section",
        { class: "panel w6" },
        h("h2", {}, `Loss and rank of “${target}” over the search`),
        row.steps.length
          ? this.paths(row)
          : h(
              "p",
              { class: "empty" },
              row.result
                ? "The path of a search is not part of a link; search again to see it."
                : "Steps are drawn here as they are made.",
            ),
      ),
    );
  }

  best(row) {
    const { best } = row;
    const helps = best.effects ?? [];
    const most = Math.max(0.01, ...helps.map((value) => Math.abs(value ?? 0)));
    const bar = (value) =>
      s(
        "svg",
        { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
        s("rect", {
          x: 0,
          width: (Math.abs(value ?? 0) / most) * 100,
          height: 10,
          rx: 1,
          fill: value >= 0 ? colour(0) : colour(1),
        }),
      );
    const parts = [
      h("span", { class: "control" }, visible(textOf(best.control))),
      h("span", { class: "plain" }, visible(this.values.state)),
    ];
    if (["after", "user_end", "reply_start"].includes(this.values.position)) parts.reverse();
    return h(
      "div",
      { class: "stack" },
      h(
        "p",
        { class: "prompt", "data-test": "prompt" },
        parts,
        " → ",
        h(
          "span",
          { class: best.emits.id === row.target[0].id ? "emits" : "" },
          visible(best.emits.text) || `#${best.emits.id}`,
        ),
      ),
      h(
        "dl",
        { class: "facts" },
        [
          ["loss", `${number(best.loss)} nats`],
          ["without control", `${number(best.base_loss)} nats`],
          ["rank", count(best.rank)],
          ["rank without", count(best.base_rank)],
        ].map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
      ),
      helps.length
        ? h(
            "div",
            {},
            h("p", { class: "note" }, "How much the loss rises without each token:"),
            h(
              "div",
              { class: "effects" },
              best.control.flatMap((entry, place) => [
                token(entry),
                bar(helps[place]),
                h(
                  "span",
                  { class: helps[place] < 0 ? "bad" : "" },
                  `${helps[place] >= 0 ? "+" : "−"}${number(Math.abs(helps[place] ?? 0))}`,
                ),
              ]),
            ),
          )
        : h("p", { class: "note" }, "The state alone: no control tokens."),
    );
  }

  paths(row) {
    const ks = [...new Set(row.steps.map((step) => step.k))].sort((a, b) => a - b);
    const end = Math.max(...row.steps.map((step) => step.forwards), 1);
    const x = { label: "controls scored", domain: [0, end] };
    const tip = (step) => [
      `${step.method}, k = ${step.k}, after ${count(step.forwards)} controls`,
      `loss ${number(step.loss)} nats${step.is_hit ? ", emits the target" : ""}`,
    ];
    const loss = chart({
      height: 210,
      label: "Loss over the search",
      x,
      y: {
        label: "loss, nats",
        domain: span(
          row.steps.map((step) => step.loss),
          { from: 0 },
        ),
      },
      tip,
      series: ks.map((k) => ({
        label: `k = ${k}`,
        colour: colour(k),
        points: row.steps
          .filter((step) => step.k === k)
          .map((step) => ({ ...step, x: step.forwards, y: step.loss, r: step.is_hit ? 6 : 3 })),
      })),
    });
    const ranked = row.steps.filter((step) => step.rank !== undefined && step.rank !== null);
    const top = Math.max(10, ...ranked.map((step) => step.rank + 1));
    const rank = chart({
      height: 170,
      label: "Rank over the search",
      x,
      y: { label: "rank + 1", log: true, domain: [1, top * 1.3] },
      tip: (step) => [
        `rank ${count(step.rank)} of the best control so far`,
        `after ${count(step.forwards)} controls`,
      ],
      series: [
        {
          colour: colour(6),
          shape: "step",
          points: ranked.map((step) => ({ ...step, x: step.forwards, y: step.rank + 1 })),
        },
      ],
    });
    return h("div", { class: "stack" }, loss, rank);
  }
}
