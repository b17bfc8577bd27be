// Choosing targets: the next-token distribution as buttons, and completion over the vocabulary.

import { post } from "./api.js";
import { debounce, h, number, s, show, textOf, token } from "./dom.js";
import { modelOrder } from "./problem.js";

const same = (a, b) => a.length === b.length && a.every((entry, place) => entry.id === b[place].id);

/** The chosen targets, each a list of tokens, as chips. */
export class Targets {
  constructor(limit, changed) {
    this.list = [];
    this.limit = limit;
    this.changed = changed;
    this.element = h("div", { class: "chips", "aria-label": "Targets" });
    this.draw();
  }

  has(target) {
    return this.list.some((entry) => same(entry, target));
  }

  toggle(target) {
    if (this.has(target)) this.list = this.list.filter((entry) => !same(entry, target));
    else if (this.list.length < this.limit) this.list = [...this.list, target];
    this.draw();
    this.changed();
  }

  set(list) {
    this.list = list;
    this.draw();
  }

  draw() {
    show(
      this.element,
      this.list.length
        ? this.list.map((target) =>
            h(
              "span",
              { class: "chip" },
              target.map(token),
              h(
                "button",
                {
                  type: "button",
                  "aria-label": `Remove ${textOf(target)}`,
                  onclick: () => this.toggle(target),
                },
                "×",
              ),
            ),
          )
        : h("span", { class: "note" }, "None yet: click a token of the distribution, or type one."),
    );
  }
}

/** The distribution as a list of buttons. */
export function distribution(answer, targets) {
  const most = answer.tokens[0]?.p || 1;
  return h(
    "div",
    {},
    h(
      "ol",
      { class: "bars" },
      answer.tokens.map((entry) =>
        h(
          "li",
          {},
          h(
            "button",
            {
              type: "button",
              "aria-pressed": String(targets.has([entry])),
              "aria-label": `${entry.text}, probability ${entry.p.toFixed(4)}`,
              onclick: () => targets.toggle([{ id: entry.id, text: entry.text }]),
            },
            token(entry),
            s(
              "svg",
              { class: "track", width: "100%", height: 10, "aria-hidden": "true" },
              s("rect", { width: `${Math.max(0.3, (entry.p / most) * 100)}%`, height: 10, rx: 2 }),
            ),
            h("span", { class: "p" }, entry.p >= 0.001 ? entry.p.toFixed(3) : entry.p.toExponential(0)),
            h("span", { class: "tick" }, targets.has([entry]) ? "✓" : ""),
          ),
        ),
      ),
    ),
    h(
      "p",
      { class: "note" },
      `All ${(answer.vocabulary - answer.tokens.length).toLocaleString("en-US")} other tokens together: `,
      `${answer.rest.toFixed(3)}. Entropy: ${number(answer.entropy)} nats.`,
    ),
  );
}

/** A text field that completes over the vocabulary; arrow keys and Enter choose. */
export function combo(values, targets, known) {
  let found = [];
  let active = -1;
  let turn = 0;
  const list = h("ul", { class: "options", role: "listbox", id: "token-options", hidden: true });
  const input = h("input", {
    id: "target",
    role: "combobox",
    "aria-label": "Type a target",
    "aria-expanded": "false",
    "aria-controls": "token-options",
    "aria-autocomplete": "list",
    autocomplete: "off",
    maxlength: Math.min(200, known.limits.characters),
    placeholder: "type a token or text, including any leading space",
    spellcheck: "false",
  });
  const close = () => {
    list.hidden = true;
    active = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const choose = (target) => {
    targets.toggle(target);
    input.value = "";
    close();
    input.focus();
  };
  const light = (place) => {
    active = place;
    [...list.children].forEach((item, at) => {
      item.setAttribute("aria-selected", String(at === place));
    });
    list.children[place]?.scrollIntoView({ block: "nearest" });
    if (place >= 0) input.setAttribute("aria-activedescendant", `token-option-${place}`);
  };
  const draw = (answer) => {
    const typed = input.value;
    found = answer.tokens.map((entry) => ({ target: [entry], hint: entry.text === typed ? "exactly" : "" }));
    if (answer.whole.length > 1)
      found.splice(found[0]?.hint ? 1 : 0, 0, {
        target: answer.whole,
        hint: `as ${answer.whole.length} tokens`,
      });
    show(
      list,
      found.map((entry, place) =>
        h(
          "li",
          {
            role: "option",
            id: `token-option-${place}`,
            "aria-selected": "false",
            onmousedown: (event) => {
              event.preventDefault();
              choose(entry.target);
            },
          },
          h("span", {}, entry.target.map(token)),
          h("small", {}, entry.hint || `#${entry.target[0].id}`),
        ),
      ),
    );
    list.hidden = !found.length;
    input.setAttribute("aria-expanded", String(!list.hidden));
    light(found.length ? 0 : -1);
  };
  const ask = debounce(150, async () => {
    const mine = ++turn;
    if (!input.value) return close();
    try {
      const answer = await post("/api/complete", { ...modelOrder(values), text: input.value });
      if (mine === turn && document.activeElement === input) draw(answer);
    } catch {
      close();
    }
  });
  input.addEventListener("input", ask);
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (list.hidden) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) light((active + step + found.length) % found.length);
    else if (event.key === "Enter" && found[active]) choose(found[active].target);
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
  });
  return h("div", { class: "combo" }, input, list);
}
