// The form that several views share: model, adapter, state, position.

import { get } from "./api.js";
import { field, h, notice, select, show } from "./dom.js";

export const POSITIONS = [
  ["before", "before the state"],
  ["after", "after the state"],
  ["system", "system message"],
  ["user_start", "start of the user's message"],
  ["user_end", "end of the user's message"],
  ["reply_start", "start of the reply"],
];

let asked = null;
/** Limits, models and adapters; asked once. */
export function about() {
  asked ??= get("/api/about").catch((error) => {
    asked = null;
    throw error;
  });
  return asked;
}

/** A view whose page is made once, when it is known what may be asked for. */
export function viewOf(Page) {
  const element = h("div", {});
  let page = null;
  return {
    element,
    async open(values) {
      page ??= new Page(await about());
      if (!element.contains(page.element)) show(element, page.element);
      await page.restore(values);
    },
  };
}

/** Model and adapter as selects; `values` is kept up to date. */
export function modelFields(known, values, changed) {
  const models = known.models.map((offer) => [offer.name, offer.label]);
  if (!models.some(([name]) => name === values.model)) {
    if (values.model) notice(`The model ${values.model} is not on offer here, so this is ${models[0]?.[1]}.`);
    values.model = models[0]?.[0] ?? "";
  }
  const adapters = known.adapters.map((offer) => [
    offer.name,
    offer.base ? `${offer.label} (on ${offer.base})` : offer.label,
  ]);
  if (!adapters.some(([name]) => name === values.adapter)) {
    if (values.adapter)
      notice(`The adapter ${values.adapter} is not on offer here, so this is the model without it.`);
    values.adapter = "";
  }
  return h(
    "div",
    { class: "row" },
    field(
      "Model",
      select(models, values.model, (event) => {
        values.model = event.target.value;
        changed();
      }),
    ),
    adapters.length > 0 &&
      field(
        "Adapter",
        select([["", "none"], ...adapters], values.adapter ?? "", (event) => {
          values.adapter = event.target.value;
          changed();
        }),
      ),
  );
}

/** The whole form of a problem's state. */
export function problemForm(known, values, changed) {
  const area = h("textarea", {
    id: "state",
    rows: 3,
    maxlength: known.limits.characters,
    value: values.state ?? "",
    spellcheck: "false",
    oninput: (event) => {
      values.state = event.target.value;
      changed();
    },
  });
  return h(
    "div",
    { class: "stack" },
    modelFields(known, values, changed),
    field("State: what the model must read", area),
    h(
      "div",
      { class: "row" },
      field(
        "The control goes",
        select(POSITIONS, values.position ?? "before", (event) => {
          values.position = event.target.value;
          changed();
        }),
      ),
    ),
  );
}

/** A choice of a link, where it is one of the pairs of a select; else nothing, and the default stands. */
export const choice = (pairs, value) => (pairs.some(([name]) => name === value) ? value : undefined);

/** What an order names of a problem. */
export const stateOrder = (values) => ({
  ...modelOrder(values),
  state: values.state ?? "",
  position: values.position || "before",
});
export const modelOrder = (values) => ({ model: values.model, adapter: values.adapter || null });

/** A number field that keeps to its limits. */
export function numberField(label, values, name, { min, max, step = 1, changed = () => {} }) {
  return field(
    label,
    h("input", {
      type: "number",
      min,
      max,
      step,
      value: values[name],
      onchange: (event) => {
        const typed = Number(event.target.value);
        const value = step === 1 ? Math.round(typed) : typed;
        values[name] = Math.min(max, Math.max(min, Number.isFinite(value) ? value : min));
        event.target.value = values[name];
        changed();
      },
    }),
  );
}
