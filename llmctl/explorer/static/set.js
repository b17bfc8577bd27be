// The reachable set: every token that some short control forces, as it is found, or as a run left it.

import { get, isBusy, post, session } from "./api.js";
import { chart, colour, span } from "./chart.js";
import {
  count,
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
} from "./dom.js";
import { linkTo, packIds, writeLink } from "./link.js";
import { choice, numberField, POSITIONS, problemForm, stateOrder, viewOf } from "./problem.js";
import { saveCsv, saveJson, savePng, saves } from "./save.js";

const CONTROLS = [
  ["any", "any tokens"],
  ["printable", "printable tokens"],
];
const START = {
  state: "The old lighthouse keeper",
  position: "before",
  k: 2,
  controls: "any",
  sample: 2048,
  forwards: 1024,
  seed: 0,
};
const COLUMNS = [
  ["Token", (row) => row.token.text],
  ["k", (row) => row.control.length],
  ["Witness", (row) => textOf(row.control)],
  ["Rank without", (row) => row.base_rank],
  ["Loss without", (row) => row.base_loss],
];
const SHOWN = 400; // rows of the table at a time

export const view = () => viewOf(SetPage);

class SetPage {
  constructor(known) {
    this.known = known;
    this.values = { ...START };
    this.run = "";
    this.state = "idle";
    this.reset();
    this.sort = [3, 1];
    this.filter = "";
    this.only = "";
    this.parts = {
      form: h("section", { class: "panel stack" }),
      map: h("section", { class: "panel" }),
      table: h("section", { class: "panel" }),
    };
    this.buttons = h("div", { class: "row center" });
    this.progress = h("div", { class: "stack" });
    this.body = h("div", { class: "scroll tall", tabindex: 0, "aria-label": "Reached tokens" });
    this.summary = h("p", { class: "note", "aria-live": "polite" });
    this.element = h(
      "div",
      {},
      h("div", { class: "head" }, h("h1", {}, "Which tokens can a short prompt force?"), this.saves()),
      h(
        "p",
        { class: "lead" },
        "The reachable set holds every token that some control of at most k tokens makes the model emit. ",
        "All allowed controls of one token are tried. With longer controls the result is a lower bound.",
      ),
      h(
        "div",
        { class: "grid" },
        h("div", { class: "w5" }, this.parts.form),
        h("div", { class: "w7" }, this.parts.map),
        this.parts.table,
      ),
    );
    session.listen("set", (news) => this.hear(news));
  }

  reset() {
    this.rows = new Map(); // by token id
    this.growth = [];
    this.end = null;
  }

  saves() {
    const rows = () => [...this.rows.values()];
    return saves({
      json: () =>
        saveJson("reachable-set", {
          ...this.values,
          run: this.run || undefined,
          ...this.end,
          reached: rows(),
          growth: this.growth,
        }),
      csv: () =>
        saveCsv(
          "reachable-set",
          ["token_id", "token", "k", "witness", "witness_ids", "base_rank", "base_loss"],
          this.sorted().map((row) => [
            row.token.id,
            row.token.text,
            row.control.length,
            textOf(row.control),
            row.control.map((entry) => entry.id).join(" "),
            row.base_rank,
            row.base_loss,
          ]),
        ),
      png: () =>
        savePng(
          "reachable-set",
          [...this.parts.map.querySelectorAll("svg.chart")],
          `Reachable set of “${this.values.state}”`,
        ),
    });
  }

  linkValues() {
    const v = this.values;
    return {
      run: this.run,
      ...(this.run
        ? {}
        : {
            m: v.model,
            a: v.adapter,
            s: v.state,
            p: v.position === "before" ? "" : v.position,
            k: v.k,
            c: v.controls === "any" ? "" : v.controls,
            n: v.sample,
            f: v.forwards,
            seed: v.seed || "",
          }),
      sort: `${this.sort[0]}.${this.sort[1]}` === "3.1" ? "" : `${this.sort[0]}.${this.sort[1]}`,
      q: this.filter,
      only: this.only,
    };
  }

  keepLink() {
    if (location.hash.startsWith("#/set")) writeLink("set", this.linkValues());
  }

  async restore(link) {
    if (this.drawn && (!Object.keys(link).length || linkTo("set", link) === linkTo("set", this.linkValues())))
      return this.keepLink();
    this.saved ??= (await get("/api/runs")).runs.filter((run) => run.kind === "reach-set" && run.is_done);
    this.stop();
    const wanted = {
      ...START,
      ...Object.fromEntries(
        Object.entries({
          model: link.m,
          adapter: link.a,
          state: link.s,
          position: choice(POSITIONS, link.p),
          controls: choice(CONTROLS, link.c),
        }).filter(([, value]) => value),
      ),
    };
    for (const [key, name, least, most] of [
      ["k", "k", 1, this.known.limits.k],
      ["n", "sample", 0, 10 ** 7],
      ["f", "forwards", 0, this.known.limits.budget],
      ["seed", "seed", 0, 2 ** 31],
    ]) {
      if (link[key] !== undefined && Number.isFinite(Number(link[key])))
        wanted[name] = Math.min(most, Math.max(least, Math.round(Number(link[key]))));
    }
    this.values = wanted;
    this.filter = link.q ?? "";
    this.only = link.only ?? "";
    const [by, way] = (link.sort ?? "3.1").split(".").map(Number);
    this.sort = COLUMNS[by] ? [by, way === -1 ? -1 : 1] : [3, 1];
    this.run = link.run ?? "";
    this.reset();
    try {
      if (this.run) await this.openRun(this.run);
    } catch (error) {
      // A link to a run that is gone: say so, and leave the view ready for another set.
      notice(error.message);
      this.run = "";
    }
    this.draw();
    if (!this.run && link.s) await this.recall();
  }

  order() {
    const { k, controls, sample, forwards, seed } = this.values;
    return { ...stateOrder(this.values), k, controls, sample, forwards, seed };
  }

  /** What the server still knows of this very set. */
  async recall() {
    const found = await post("/api/explored", this.order());
    if (!found.reached.length || this.rows.size) return;
    for (const entry of found.reached) this.rows.set(entry.token.id, entry);
    [this.growth, this.end] = [found.growth, found.end];
    this.state = found.end ? "explored earlier" : "explored in part, earlier";
    this.drawButtons();
    this.drawFound();
  }

  async openRun(run) {
    const found = await get("/api/set", { run });
    this.run = run;
    this.reset();
    for (const entry of found.reached) {
      // A run keeps the witness's text as a whole; its tokens are known by their ids.
      const whole = [{ id: entry.control_ids.join(" "), text: entry.control_text ?? "" }];
      this.rows.set(entry.token, {
        token: { id: entry.token, text: entry.text },
        control: Object.assign(entry.control_ids.length ? whole : [], {
          k: entry.control_ids.length,
          ids: entry.control_ids,
        }),
        base_rank: entry.base_rank,
        base_loss: entry.base_loss,
      });
    }
    for (const row of this.rows.values())
      row.control = row.control.ids.map((id, place) => ({
        id,
        text: place === 0 ? row.control[0].text : "",
      }));
    this.growth = found.growth;
    this.end = { k: found.k, exact_k: found.exact_k, allowed: found.allowed, reached: found.reached.length };
    this.values = {
      ...this.values,
      model: found.model,
      adapter: found.adapter,
      state: found.state_text,
      position: found.position,
      k: found.k,
    };
  }

  draw() {
    const { limits } = this.known;
    const kept = () => this.keepLink();
    const changed = () => {
      this.stop();
      this.run = "";
      this.reset();
      this.state = "idle";
      this.drawButtons();
      this.drawFound();
      this.keepLink();
    };
    show(
      this.parts.form,
      this.saved.length > 0 &&
        field(
          "Open a finished set",
          select(
            [["", "explore here"], ...this.saved.map((run) => [run.name, run.name])],
            this.run,
            async (event) => {
              const { value } = event.target;
              try {
                if (value) await this.openRun(value);
                else changed();
              } catch (error) {
                notice(error.message);
              }
              this.draw();
              this.keepLink();
            },
            { id: "saved-set" },
          ),
        ),
      problemForm(this.known, this.values, changed),
      h(
        "div",
        { class: "row" },
        numberField("Tokens, k", this.values, "k", { min: 1, max: limits.k, changed: kept }),
        numberField("Allowed tokens (0: all)", this.values, "sample", {
          min: 0,
          max: 10 ** 7,
          changed: kept,
        }),
        numberField("Controls beyond k = 1", this.values, "forwards", {
          min: 0,
          max: limits.budget,
          changed: kept,
        }),
        numberField("Seed", this.values, "seed", { min: 0, max: 2 ** 31, changed: kept }),
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
    show(
      this.parts.table,
      h(
        "div",
        { class: "head" },
        h("h2", {}, "Reached tokens"),
        h(
          "div",
          { class: "row center" },
          h("input", {
            id: "set-filter",
            type: "search",
            placeholder: "filter by text",
            "aria-label": "Filter by text",
            value: this.filter,
            oninput: (event) => {
              this.filter = event.target.value;
              this.drawTable();
              kept();
            },
          }),
          select(
            [
              ["", "any length"],
              ["0", "the state alone"],
              ["1", "what one token forces"],
              ["2", "two tokens or more"],
            ],
            this.only,
            (event) => {
              this.only = event.target.value;
              this.drawTable();
              kept();
            },
            { "aria-label": "Length of the witness" },
          ),
        ),
      ),
      this.summary,
      this.body,
    );
    this.drawn = true;
    this.drawButtons();
    this.drawFound();
    this.keepLink();
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
          id: "explore",
          disabled: runs || !this.values.state,
          onclick: () => this.start(),
        },
        "Explore",
      ),
      runs &&
        h(
          "button",
          {
            type: "button",
            disabled: !["running", "paused"].includes(this.state),
            onclick: () => session.send({ do: this.state === "paused" ? "go-on" : "pause", kind: "set" }),
          },
          this.state === "paused" ? "Resume" : "Pause",
        ),
      runs && h("button", { type: "button", onclick: () => this.stop() }, "Stop"),
      h(
        "span",
        { class: "soft", id: "set-state" },
        {
          waiting: `waiting, place ${this.place ?? ""}`,
          running: "exploring …",
          lost: "the connection was lost",
          idle: "",
        }[this.state] ?? this.state,
      ),
    );
  }

  async start() {
    this.run = "";
    this.reset();
    this.state = "starting";
    this.drawButtons();
    this.drawFound();
    try {
      this.job = session.name("set");
      await session.start("set", this.job, this.order());
    } catch (error) {
      this.state = "failed";
      notice(error.message);
      this.drawButtons();
    }
    this.keepLink();
  }

  stop() {
    if (isBusy(this.state)) session.send({ do: "stop", kind: "set" });
  }

  hear(news) {
    if (news.event === "lost") {
      if (isBusy(this.state)) this.state = "lost";
      return this.drawButtons();
    }
    if (news.job !== this.job) return;
    if (news.event === "state") {
      [this.state, this.place] = [news.state, news.place];
      if (news.error) notice(news.error);
      if (["done", "stopped", "failed"].includes(news.state)) show(this.progress);
      this.drawButtons();
      this.drawFound();
    } else if (news.event === "refused") {
      this.state = "failed";
      this.drawButtons();
    } else if (news.event === "reached") {
      for (const entry of news.tokens) this.rows.set(entry.token.id, entry);
    } else if (news.event === "progress") {
      this.growth.push({ forwards: news.forwards, reached: news.reached });
      const share = Math.min(1, news.forwards / news.of);
      show(
        this.progress,
        h(
          "div",
          {
            class: "meter",
            role: "progressbar",
            "aria-valuenow": Math.round(share * 100),
            "aria-label": "Share of the plan",
          },
          s("svg", { preserveAspectRatio: "none" }, s("rect", { width: `${share * 100}%`, height: "100%" })),
        ),
        h(
          "p",
          { class: "note" },
          `${count(news.reached)} tokens reached with ${count(news.forwards)} of ${count(news.of)} controls `,
          `in ${duration(news.seconds)}`,
          news.left === null ? "" : `; about ${duration(news.left)} left`,
        ),
      );
      this.drawSoon();
    } else if (news.event === "end") {
      this.end = { k: news.k, exact_k: news.exact_k, allowed: news.allowed, reached: news.reached };
    }
  }

  /** Not more than a few times a second, however fast the news comes. */
  drawSoon() {
    if (this.drawing) return;
    this.drawing = setTimeout(() => {
      this.drawing = 0;
      this.drawFound();
    }, 250);
  }

  drawFound() {
    this.drawMap();
    this.drawTable();
  }

  drawMap() {
    const rows = [...this.rows.values()];
    if (!rows.length)
      return show(
        this.parts.map,
        h("h2", {}, "Base rank by length of the witness"),
        h(
          "p",
          { class: "empty" },
          this.state === "running"
            ? "The first tokens are on their way."
            : "Press Explore to see which tokens can be forced, or open a finished set.",
        ),
      );
    const most = Math.max(1, ...rows.map((row) => row.control.length));
    const top = Math.max(10, ...rows.map((row) => row.base_rank + 1));
    const tip = (row) => [
      token(row.token),
      h("span", {}, "by ", tokens(row.control)),
      `rank ${count(row.base_rank)} and loss ${number(row.base_loss)} nats without`,
    ];
    const map = chart({
      height: 300,
      label: "Base rank by length of the witness",
      x: {
        label: "tokens of the witness, k",
        domain: [-0.5, most + 0.5],
        ticks: Array.from({ length: most + 1 }, (_, k) => k),
      },
      y: { label: "base rank + 1", log: true, domain: [1, top * 1.4] },
      tip,
      click: (row) => this.search(row),
      series: Array.from({ length: most + 1 }, (_, k) => ({
        label: k ? `k = ${k}` : "the state alone",
        shape: "dots",
        colour: colour(k),
        points: rows
          .filter((row) => row.control.length === k)
          .map((row) => ({ ...row, x: k + jitter(row.token.id), y: row.base_rank + 1 })),
      })).filter((entry) => entry.points.length),
    });
    const growth =
      this.growth.length > 1 &&
      chart({
        height: 170,
        label: "Growth of the set",
        x: { label: "controls scored", domain: [0, this.growth.at(-1).forwards] },
        y: {
          label: "tokens reached",
          domain: span(
            this.growth.map((point) => point.reached),
            { from: 0 },
          ),
        },
        tip: (point) => [`${count(point.reached)} tokens`, `after ${count(point.forwards)} controls`],
        series: [
          {
            colour: colour(0),
            shape: "step",
            points: thin(this.growth, 300).map((point) => ({
              ...point,
              x: point.forwards,
              y: point.reached,
            })),
          },
        ],
      });
    show(
      this.parts.map,
      h("h2", {}, "Base rank by length of the witness"),
      h("p", { class: "note" }, "Click a point to open it in Search."),
      map,
      growth,
    );
  }

  sorted() {
    const [by, way] = this.sort;
    const key = COLUMNS[by][1];
    const wanted = this.filter.toLowerCase();
    const keep =
      { "": () => true, 0: (k) => k === 0, 1: (k) => k === 1, 2: (k) => k >= 2 }[this.only] ?? (() => true);
    return [...this.rows.values()]
      .filter(
        (row) =>
          keep(row.control.length) &&
          (!wanted ||
            row.token.text.toLowerCase().includes(wanted) ||
            textOf(row.control).toLowerCase().includes(wanted)),
      )
      .sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        return way * (x < y ? -1 : x > y ? 1 : a.base_rank - b.base_rank);
      });
  }

  /** One sentence on what the table shows, and how far it can be trusted. */
  describe(by, rows) {
    const more = by(2) ? `, ${count(by(2))} by more` : "";
    const sizes = `${count(this.rows.size)} tokens: ${count(by(1))} by one token${more}.`;
    const beyond = this.end?.k > 1 ? "; a lower bound for longer controls" : "";
    const exact = this.end
      ? `Exact up to k = ${this.end.exact_k} over the ${count(this.end.allowed)} allowed tokens${beyond}.`
      : "Not finished, so this is a lower bound.";
    const cut =
      rows > SHOWN ? `The first ${SHOWN} of ${count(rows)} rows are shown; downloads have all.` : "";
    return [sizes, exact, cut].filter(Boolean).join(" ");
  }

  drawTable() {
    const rows = this.sorted();
    const by = (k) =>
      [...this.rows.values()].filter((row) => (k === 2 ? row.control.length >= 2 : row.control.length === k))
        .length;
    show(this.summary, !this.rows.size ? "" : this.describe(by, rows.length));
    show(
      this.body,
      rows.length
        ? h(
            "table",
            { id: "reached" },
            h(
              "thead",
              {},
              h(
                "tr",
                {},
                COLUMNS.map(([name], place) =>
                  h(
                    "th",
                    {
                      class: place > 2 ? "n" : "",
                      "aria-sort":
                        this.sort[0] === place ? (this.sort[1] > 0 ? "ascending" : "descending") : "none",
                    },
                    h(
                      "button",
                      {
                        type: "button",
                        onclick: () => {
                          this.sort = [place, this.sort[0] === place ? -this.sort[1] : 1];
                          this.drawTable();
                          this.keepLink();
                        },
                      },
                      name,
                      this.sort[0] === place ? (this.sort[1] > 0 ? " ↑" : " ↓") : "",
                    ),
                  ),
                ),
              ),
            ),
            h(
              "tbody",
              {},
              rows.slice(0, SHOWN).map((row) =>
                h(
                  "tr",
                  opens({ title: "Open in Search" }, () => this.search(row)),
                  h("td", {}, token(row.token)),
                  h("td", {}, row.control.length),
                  h(
                    "td",
                    {},
                    tokens(row.control.filter((entry) => entry.text !== "" || row.control.length === 1)),
                  ),
                  h("td", { class: "n" }, count(row.base_rank)),
                  h("td", { class: "n" }, number(row.base_loss)),
                ),
              ),
            ),
          )
        : h("p", { class: "empty" }, this.rows.size ? "No reached token fits the filter." : "Nothing yet."),
    );
  }

  search(row) {
    const v = this.values;
    location.hash = linkTo("search", {
      m: v.model,
      a: v.adapter,
      s: v.state,
      p: v.position === "before" ? "" : v.position,
      t: packIds([[row.token.id]]),
      w: packIds([row.control.map((entry) => entry.id)]),
      k: Math.max(1, v.k),
    });
  }
}

/** A place within a column that depends on the token alone, so that a point stays where it is. */
const jitter = (id) => (((id * 2654435761) % 4096) / 4096 - 0.5) * 0.62;

/** At most so many points of a curve, its end among them. */
function thin(points, most) {
  if (points.length <= most) return points;
  const step = points.length / most;
  return [...Array.from({ length: most }, (_, place) => points[Math.floor(place * step)]), points.at(-1)];
}
