// Elements from data. Text only ever becomes text: nothing here parses markup.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element; `on*` properties are listeners, `class` and ARIA names are attributes. */
export function h(name, properties = {}, ...children) {
  return fill(document.createElement(name), properties, children);
}

/** An SVG element. */
export function s(name, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, name), properties, children);
}

function fill(element, properties, children) {
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "value" || key === "checked" || key === "disabled" || key === "selected")
      element[key] = value;
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

/** Put new children in place of the old ones. */
export function show(element, ...children) {
  element.replaceChildren(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

const SIGNS = { " ": "␣", "\n": "⏎", "\t": "⇥", "\r": "\\r" };

/** The text of a token with what can not be seen, or could disguise itself (control, bidi, odd spaces), as escapes. */
export function visible(text) {
  return text.replace(
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}]|(?! )\p{Zs}/gu,
    (sign) => SIGNS[sign] ?? `\\u${sign.codePointAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** A token as an element. */
export function token(entry) {
  const shown = visible(entry.text).split(/( |⏎|⇥)/);
  const parts = shown.map((part) =>
    part === " " || part === "⏎" || part === "⇥" ? h("span", { class: "space" }, SIGNS[part] ?? part) : part,
  );
  return h(
    "span",
    { class: "token", title: `token ${entry.id}` },
    entry.text === "" ? `#${entry.id}` : parts,
  );
}

/** Several tokens in a row. */
export function tokens(entries) {
  return h(
    "span",
    { class: "tokens" },
    entries.length ? entries.map(token) : h("span", { class: "soft" }, "no control"),
  );
}

/** The text of tokens, for files and labels. */
export const textOf = (entries) => entries.map((entry) => entry.text).join("");

export const number = (value, digits = 2) =>
  value === null || value === undefined ? "–" : Number(value).toFixed(digits);
export const count = (value) =>
  value === null || value === undefined ? "–" : Number(value).toLocaleString("en-US");

/** Seconds for people. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

/** A line at the foot of the page, for a moment. */
export function notice(text) {
  const line = h("p", {}, text);
  document.getElementById("notice").append(line);
  setTimeout(() => line.remove(), 6000);
}

/** A labelled field. */
export function field(label, input) {
  return h("label", {}, label, input);
}

/** A select of [value, label] pairs. */
export function select(options, value, onchange, properties = {}) {
  return h(
    "select",
    { onchange, ...properties },
    options.map(([option, label]) => h("option", { value: option, selected: option === value }, label)),
  );
}

/** Call after a pause. */
export function debounce(wait, work) {
  let timer = 0;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...args), wait);
  };
}

/** An element that a key or a click opens. */
export function opens(properties, work) {
  return {
    tabindex: 0,
    ...properties,
    onclick: work,
    onkeydown: (event) => {
      if ((event.key === "Enter" || event.key === " ") && event.target === event.currentTarget) {
        event.preventDefault();
        work(event);
      }
    },
  };
}
