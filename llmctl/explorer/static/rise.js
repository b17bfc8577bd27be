// RISE: an episode as a conversation, the flows between turns, and a box to try a tuned model.

import { get, isBusy, session } from "./api.js";
import { chart, colour } from "./chart.js";
import { count, field, h, notice, number, s, select, show, visible } from "./dom.js";
import { linkTo, writeLink } from "./link.js";
import { modelFields, modelOrder, numberField, viewOf } from "./problem.js";
import { saveCsv, saveJson, savePng, saves } from "./save.js";

const LIVE = { problem: "", answer: "", system: "", turns: 3, new_tokens: 128, temperature: 0, seed: 0 };

export const view = () => viewOf(RisePage);

class RisePage {
  constructor(known) {
    this.known = known;
    this.run = "";
    this.found = null;
    this.stage = null;
    this.problem = "";
    this.episode = null;
    this.live = { ...LIVE };
    this.talks = {};
    this.state = "idle";
    this.parts = {
      run: h("section", { class: "panel stack" }),
      flows: h("section", { class: "panel" }),
      talk: h("section", { class: "panel", "aria-live": "polite" }),
      live: h("section", { class: "panel stack" }),
    };
    this.sides = h("div", { class: "sides", "aria-live": "polite" });
    this.buttons = h("div", { class: "row center" });
    this.element = h(
      "div",
      {},
      h(
        "div",
        { class: "head" },
        h("h1", {}, "Does the model correct its own answers?"),
        saves({
          json: () =>
            saveJson("rise", {
              run: this.run,
              ...this.found,
              episode: this.episode,
              live: Object.keys(this.talks).length ? { ...this.live, talks: this.talks } : undefined,
            }),
          csv: () =>
            saveCsv(
              "rise",
              ["stage", "problem", "turn", "is_correct"],
              (this.found?.stages ?? []).flatMap((stage) =>
                stage.episodes.flatMap((entry) =>
                  entry.right.map((is, turn) => [stage.stage, entry.problem, turn + 1, is]),
                ),
              ),
            ),
          png: () => savePng("rise", [...this.parts.flows.querySelectorAll("svg.chart")], this.run),
        }),
      ),
      h(
        "p",
        { class: "lead" },
        "The model attempts each problem several times. After every turn it is told that its answer is wrong, ",
        "even when the answer is right. The view shows how its answers change.",
      ),
      h(
        "div",
        { class: "grid" },
        h("div", { class: "w5 stack" }, this.parts.run, this.parts.flows),
        h("div", { class: "w7 stack" }, this.parts.talk, this.parts.live),
      ),
    );
    session.listen("converse", (news) => this.hear(news));
  }

  linkValues() {
    const l = this.live;
    const live = l.problem
      ? {
          lp: l.problem,
          la: l.answer,
          ls: l.system,
          lt: l.turns,
          ln: l.new_tokens,
          lx: l.temperature,
          seed: l.seed,
          m: l.model,
          a: l.adapter,
        }
      : {};
    return { run: this.run, stage: this.stage, problem: this.problem, ...live };
  }

  keepLink() {
    if (location.hash.startsWith("#/rise")) writeLink("rise", this.linkValues());
  }

  async restore(link) {
    if (
      this.drawn &&
      (!Object.keys(link).length || linkTo("rise", link) === linkTo("rise", this.linkValues()))
    )
      return this.keepLink();
    this.runs = (await get("/api/runs")).runs.filter((run) => run.kind === "rise");
    for (const [key, name] of [
      ["lp", "problem"],
      ["la", "answer"],
      ["ls", "system"],
      ["m", "model"],
      ["a", "adapter"],
    ])
      if (link[key]) this.live[name] = link[key];
    for (const [key, name, least, most] of [
      ["lt", "turns", 1, this.known.limits.turns],
      ["ln", "new_tokens", 1, this.known.limits.new_tokens],
      ["lx", "temperature", 0, 5],
      ["seed", "seed", 0, 2 ** 31],
    ]) {
      if (link[key] !== undefined && Number.isFinite(Number(link[key])))
        this.live[name] = Math.min(
          most,
          Math.max(least, name === "temperature" ? Number(link[key]) : Math.round(Number(link[key]))),
        );
    }
    this.drawn = true;
    this.drawLive();
    await this.openRun(
      link.run ?? this.runs.find((run) => run.is_done)?.name ?? "",
      link.stage === undefined ? null : Number(link.stage),
      link.problem ?? "",
    );
  }

  async openRun(run, stage = null, problem = "") {
    this.run = run;
    this.found = this.episode = null;
    try {
      if (run) this.found = await get("/api/rise", { run });
    } catch (error) {
      notice(error.message);
      this.run = "";
    }
    const stages = this.found?.stages ?? [];
    this.stage = stages.some((entry) => entry.stage === stage) ? stage : (stages.at(-1)?.stage ?? null);
    this.problem = problem;
    this.drawRun();
    const chosen =
      this.entries().find((entry) => entry.problem === problem) ??
      this.entries().find((entry) => !entry.right[0] && entry.right.at(-1)) ??
      this.entries()[0];
    if (chosen) await this.openEpisode(chosen.problem);
    else this.drawTalk();
    this.keepLink();
  }

  entries() {
    return this.found?.stages.find((entry) => entry.stage === this.stage)?.episodes ?? [];
  }

  async openEpisode(problem) {
    this.problem = problem;
    try {
      this.episode = await get("/api/episode", { run: this.run, stage: this.stage, problem });
    } catch (error) {
      this.episode = null;
      notice(error.message);
    }
    this.drawTalk();
    this.parts.run.querySelectorAll(".strip button").forEach((button) => {
      button.setAttribute("aria-pressed", String(button.dataset.problem === problem));
    });
    this.keepLink();
  }

  drawRun() {
    const kinds = {
      Repaired: (r) => !r[0] && r.at(-1),
      Broken: (r) => r[0] && !r.at(-1),
      "Right throughout": (r) => r.every(Boolean),
      "Never right": (r) => !r.some(Boolean),
    };
    const left = new Set(this.entries());
    const group = (name, fits) => {
      const found = [...left].filter((entry) => fits(entry.right));
      for (const entry of found) left.delete(entry);
      return (
        found.length > 0 &&
        h(
          "div",
          {},
          h("p", { class: "note" }, `${name}: ${count(found.length)}`),
          h(
            "div",
            { class: "strip" },
            found.slice(0, 60).map((entry) =>
              h(
                "button",
                {
                  type: "button",
                  "data-problem": entry.problem,
                  title: entry.problem,
                  "aria-label": `${entry.problem}: ${entry.right.map((is) => (is ? "right" : "wrong")).join(", ")}`,
                  "aria-pressed": String(entry.problem === this.problem),
                  onclick: () => this.openEpisode(entry.problem),
                },
                entry.right.map((is) => h("span", { class: is ? "good" : "bad" }, is ? "✓" : "✗")),
              ),
            ),
            found.length > 60 && h("span", { class: "note" }, `and ${found.length - 60} more`),
          ),
        )
      );
    };
    const names = (entry) => (entry.stage === 0 ? "before training" : `after round ${entry.stage}`);
    show(
      this.parts.run,
      this.runs.length
        ? [
            h(
              "div",
              { class: "row" },
              field(
                "Run",
                select(
                  [["", "choose a run"], ...this.runs.map((run) => [run.name, run.name])],
                  this.run,
                  (event) => this.openRun(event.target.value),
                  { id: "rise-run" },
                ),
              ),
              this.found &&
                field(
                  "Evaluated",
                  select(
                    this.found.stages.map((entry) => [String(entry.stage), names(entry)]),
                    String(this.stage),
                    (event) => this.openRun(this.run, Number(event.target.value)),
                  ),
                ),
            ),
            this.found &&
              h(
                "p",
                { class: "note" },
                `${this.found.model} on ${this.found.task}, ${count(this.entries().length)} problems. `,
                "Each mark is one turn.",
              ),
            Object.entries(kinds).map(([name, fits]) => group(name, fits)),
            group("Now right, now wrong", () => true),
          ]
        : h(
            "p",
            { class: "empty" },
            "There is no RISE run in the runs folder. ",
            h("code", {}, "llmctl rise run rise/smoke"),
            " makes one in a minute or two.",
          ),
    );
    const stage = this.found?.stages.find((entry) => entry.stage === this.stage);
    this.parts.flows.hidden = !stage;
    if (stage)
      show(this.parts.flows, h("h2", {}, "Flows between turns"), flows(stage.flows), this.accuracy());
  }

  /** Accuracy of each turn, every stage beside the others. */
  accuracy() {
    const { stages } = this.found;
    const turns = stages[0].flows.length;
    return chart({
      height: 220,
      label: "Accuracy by turn",
      x: {
        label: "turn",
        domain: [0.7, turns + 0.3],
        ticks: Array.from({ length: turns }, (_, turn) => turn + 1),
      },
      y: { label: "accuracy of that turn alone", domain: [0, 1] },
      tip: (p, entry) => [
        entry.name,
        `turn ${p.turn}: ${number(p.y, 3)} [${number(p.low, 3)}, ${number(p.high, 3)}], n = ${p.accuracy.n}`,
      ],
      series: stages.map((stage, place) => ({
        label: stage.stage === 0 ? "before training" : `after round ${stage.stage}`,
        name: stage.stage === 0 ? "before training" : `after round ${stage.stage}`,
        colour: colour(place),
        points: stage.flows.map((turn) => ({
          ...turn,
          x: turn.turn + place * 0.04,
          y: turn.accuracy.value,
          low: turn.accuracy.low,
          high: turn.accuracy.high,
        })),
      })),
    });
  }

  drawTalk() {
    if (!this.episode)
      return show(
        this.parts.talk,
        h("h2", {}, "Episode"),
        h("p", { class: "empty" }, "Choose a run and an episode."),
      );
    const { prompt, gold, turns, problem, retry } = this.episode;
    const asked =
      prompt ??
      `Problem ${problem}. The run does not keep its text, and the file of the task is outside the runs folder.`;
    show(
      this.parts.talk,
      h(
        "div",
        { class: "head" },
        h("h2", {}, `Episode ${problem}`),
        h(
          "span",
          { class: "note" },
          "reference answer ",
          h("b", {}, visible(String(gold ?? "–"))),
          prompt !== null && " · ",
          prompt !== null &&
            h(
              "button",
              { class: "link", type: "button", id: "try", onclick: () => this.tryIt() },
              "try it live",
            ),
        ),
      ),
      h(
        "div",
        { class: "talk", id: "episode" },
        turns.flatMap((turn, place) => [
          place === 0
            ? h("div", { class: "say user" }, asked)
            : h("div", { class: "say user" }, `${retry} `, h("small", {}, "and the problem once more")),
          answer(turn.text, turn.is_correct, turnNote(turn, place)),
        ]),
      ),
    );
  }

  /** The episode's problem, in the box below, with what this run has trained where it is on offer. */
  tryIt() {
    const { prompt, gold, system } = this.episode;
    const trained = this.known.adapters.find(
      (offer) => offer.name === `runs:${this.run}/models/${this.stage}`,
    );
    const model = this.known.models.find((offer) =>
      [`runs:${this.run}/models/${this.stage}`, this.found.model].includes(offer.name),
    );
    Object.assign(this.live, {
      problem: prompt,
      answer: String(gold ?? ""),
      system,
      adapter: trained?.name ?? "",
      ...(model ? { model: model.name } : {}),
    });
    this.drawLive();
    this.keepLink();
    this.parts.live.scrollIntoView({ block: "nearest" });
    document.getElementById("ask").focus();
  }

  drawLive() {
    const { limits } = this.known;
    const kept = () => this.keepLink();
    const text = (name, properties) =>
      h(properties.rows ? "textarea" : "input", {
        ...properties,
        value: this.live[name],
        spellcheck: "false",
        oninput: (event) => {
          this.live[name] = event.target.value;
          kept();
          this.drawButtons();
        },
      });
    show(
      this.parts.live,
      h("h2", {}, "Try a problem of your own"),
      h(
        "p",
        { class: "note" },
        this.known.adapters.length
          ? "Choose an adapter to compare the tuned model with its base model on the same problem and seed."
          : "No adapter is available to compare with the base model: train one, or start with --adapter.",
      ),
      modelFields(this.known, this.live, () => {
        kept();
      }),
      field(
        "Problem",
        text("problem", {
          rows: 2,
          maxlength: limits.characters,
          id: "own-problem",
          placeholder: "Sort these numbers from smallest to largest: 42 7 19 63",
        }),
      ),
      h(
        "div",
        { class: "row" },
        field("Reference answer (optional)", text("answer", { maxlength: 200 })),
        field("System prompt (optional)", text("system", { maxlength: limits.characters })),
      ),
      h(
        "div",
        { class: "row" },
        numberField("Turns", this.live, "turns", { min: 1, max: limits.turns, changed: kept }),
        numberField("Tokens per reply", this.live, "new_tokens", {
          min: 1,
          max: limits.new_tokens,
          changed: kept,
        }),
        numberField("Temperature", this.live, "temperature", { min: 0, max: 5, step: 0.1, changed: kept }),
        numberField("Seed", this.live, "seed", { min: 0, max: 2 ** 31, changed: kept }),
      ),
      this.buttons,
      this.sides,
    );
    this.drawButtons();
    this.drawSides();
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
          id: "ask",
          disabled: runs || !this.live.problem,
          onclick: () => this.ask(),
        },
        "Ask",
      ),
      runs &&
        h(
          "button",
          { type: "button", onclick: () => session.send({ do: "stop", kind: "converse" }) },
          "Stop",
        ),
      h(
        "span",
        { class: "soft", id: "live-state" },
        { idle: "", running: "answering …", lost: "the connection was lost" }[this.state] ?? this.state,
      ),
    );
  }

  async ask() {
    const { problem, answer: wanted, system, turns, new_tokens, temperature, seed } = this.live;
    this.talks = {};
    this.state = "starting";
    this.drawButtons();
    this.drawSides();
    try {
      this.job = session.name("converse");
      await session.start("converse", this.job, {
        ...modelOrder(this.live),
        problem,
        answer: wanted,
        system,
        turns,
        new_tokens,
        temperature,
        seed,
      });
    } catch (error) {
      this.state = "failed";
      notice(error.message);
      this.drawButtons();
    }
    this.keepLink();
  }

  hear(news) {
    if (news.event === "lost") {
      if (isBusy(this.state)) this.state = "lost";
      return this.drawButtons();
    }
    if (news.job !== this.job) return;
    if (news.event === "state") {
      this.state = news.state;
      if (news.error) notice(news.error);
      return this.drawButtons();
    }
    if (news.event === "refused") {
      this.state = "failed";
      return this.drawButtons();
    }
    if (news.event === "begin") this.talks = Object.fromEntries(news.sides.map((side) => [side, []]));
    const talk = this.talks[news.side];
    if (news.event === "text") {
      talk[news.turn] ??= { text: "" };
      talk[news.turn].text += news.piece;
    } else if (news.event === "turn") {
      talk[news.turn] = news;
    }
    this.drawSides();
  }

  drawSides() {
    const names = { tuned: "With the adapter", base: this.live.adapter ? "Without it" : "The model" };
    show(
      this.sides,
      Object.entries(this.talks).map(([side, talk]) =>
        h(
          "div",
          {},
          h("h2", {}, names[side]),
          h(
            "div",
            { class: "talk", "data-side": side },
            talk.flatMap((turn, place) => [
              h("div", { class: "say user" }, place === 0 ? this.live.problem : "That is not correct."),
              answer(
                turn.text,
                turn.is_correct ?? null,
                turn.tokens === undefined ? "…" : liveNote(turn, place),
              ),
            ]),
          ),
        ),
      ),
    );
  }
}

/** What stands below a reply of a finished run. */
function turnNote(turn, place) {
  const hasAnswer = turn.answer !== null && turn.answer !== undefined;
  return [
    `turn ${place + 1}`,
    turn.is_correct ? "right" : "wrong",
    hasAnswer ? `answer ${turn.answer}` : "no answer found",
    `${count(turn.tokens)} tokens`,
    turn.is_repeat && "repeats an earlier reply",
    turn.error && `engine error: ${turn.error}`,
  ]
    .filter(Boolean)
    .join(", ");
}

/** What stands below a reply of a problem that somebody typed; it is judged only where an answer was given. */
function liveNote(turn, place) {
  return [
    `turn ${place + 1}`,
    turn.is_correct !== null && (turn.is_correct ? "right" : "wrong"),
    turn.answer !== null && `answer ${turn.answer}`,
    `${count(turn.tokens)} tokens`,
  ]
    .filter(Boolean)
    .join(", ");
}

function answer(text, isRight, note) {
  const mark = isRight === null ? "" : isRight ? "right" : "wrong";
  return h(
    "div",
    { class: `say model ${mark}` },
    text || h("span", { class: "soft" }, "(nothing)"),
    h("small", {}, mark && h("b", { class: isRight ? "good" : "bad" }, isRight ? "✓ " : "✗ "), visible(note)),
  );
}

/** Right and wrong answers of each turn as blocks, and what became of them as bands. */
function flows(turns) {
  const svg = s("svg", {
    class: "chart",
    role: "img",
    "aria-label": turns.map((turn) => `turn ${turn.turn}: ${number(turn.accuracy.value)} right`).join("; "),
  });
  const figure = h(
    "figure",
    {},
    h(
      "div",
      { class: "legend" },
      [
        ["right", 2],
        ["wrong", 1],
      ].map(([name, place]) =>
        h(
          "span",
          {},
          s(
            "svg",
            { viewBox: "0 0 26 16" },
            s("rect", { x: 2, y: 2, width: 22, height: 12, rx: 2, fill: colour(place) }),
          ),
          name,
        ),
      ),
    ),
    svg,
    h(
      "figcaption",
      {},
      turns
        .slice(1)
        .map(
          (turn) =>
            `turn ${turn.turn - 1} → ${turn.turn}: ${turn.wrong_to_right} repaired, ${turn.right_to_wrong} broken`,
        )
        .join("; "),
    ),
  );
  const watcher = new ResizeObserver(() =>
    figure.isConnected ? drawFlows(svg, turns) : watcher.disconnect(),
  );
  watcher.observe(figure);
  return figure;
}

function drawFlows(svg, turns) {
  const width = Math.max(svg.parentElement.clientWidth, 200);
  const [height, top, foot, block, gap] = [230, 8, 26, 14, 6];
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  const n = Math.max(...turns.map((turn) => turn.accuracy.n));
  const scale = (height - top - foot - gap) / n;
  const x = (place) => 12 + (turns.length > 1 ? (place * (width - 40 - block)) / (turns.length - 1) : 0);
  const right = (turn) => Math.round(turn.accuracy.value * turn.accuracy.n);
  const parts = turns.map((turn, place) => {
    const high = right(turn) * scale;
    const low = (turn.accuracy.n - right(turn)) * scale;
    return [
      s("rect", { x: x(place), y: top, width: block, height: high, fill: colour(2) }),
      s("rect", { x: x(place), y: top + high + gap, width: block, height: low, fill: colour(1) }),
      s(
        "text",
        {
          x: x(place) + block / 2,
          y: height - 8,
          "text-anchor": place === 0 ? "start" : place === turns.length - 1 ? "end" : "middle",
        },
        `turn ${turn.turn}`,
      ),
      high > 16 && s("text", { x: x(place) + block + 4, y: top + 12 }, right(turn)),
    ];
  });
  const bands = turns.slice(1).flatMap((turn, at) => {
    const [before, x0, x1] = [turns[at], x(at) + block, x(at + 1)];
    const split = [top + right(before) * scale + gap, top + right(turn) * scale + gap];
    // From above to below on either side: right to right, right to wrong; wrong to right, wrong to wrong.
    const { right_to_right: rr, right_to_wrong: rw, wrong_to_right: wr, wrong_to_wrong: ww } = turn;
    return [
      [top, top, rr, 2],
      [top + rr * scale, split[1], rw, 1],
      [split[0], top + rr * scale, wr, 2],
      [split[0] + wr * scale, split[1] + rw * scale, ww, 1],
    ].map(([y0, y1, size, tint]) => {
      const [mid, thick] = [(x0 + x1) / 2, size * scale];
      return (
        size > 0 &&
        s("path", {
          d: [
            `M${x0} ${y0}C${mid} ${y0} ${mid} ${y1} ${x1} ${y1}v${thick}`,
            `C${mid} ${y1 + thick} ${mid} ${y0 + thick} ${x0} ${y0 + thick}Z`,
          ].join(""),
          fill: colour(tint),
          opacity: 0.28,
        })
      );
    });
  });
  show(svg, bands, s("g", { class: "axis" }, parts));
}
