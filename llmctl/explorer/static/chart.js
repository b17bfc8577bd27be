// Charts as plain SVG: axes, lines with intervals, dots, a cursor for mouse and keys.

import { h, s, show } from "./dom.js";

export const colour = (place) => `var(--c${place % 8})`;

const tip = () => document.getElementById("tip");

/** Show the tip near a place of the window. */
export function showTip(x, y, ...lines) {
  const box = show(
    tip(),
    lines.map((line) => h("div", {}, line)),
  );
  box.hidden = false;
  const { width, height } = box.getBoundingClientRect();
  box.style.left = `${Math.max(6, Math.min(x + 14, innerWidth - width - 6))}px`;
  box.style.top = `${y + height + 20 > innerHeight ? Math.max(6, y - height - 12) : y + 14}px`;
}

export const hideTip = () => {
  tip().hidden = true;
};

/** Round numbers that span a domain. */
export function ticksOf(low, high, wanted = 5) {
  if (!(high > low)) return [low];
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((unit) => unit * power).find((unit) => unit >= rough);
  const ticks = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step)
    ticks.push(+at.toPrecision(12));
  return ticks;
}

function powersOf(low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); 10 ** power <= high * 1.0001; power++) {
    if (10 ** power >= low * 0.9999) ticks.push(10 ** power);
  }
  return ticks;
}

/** A scale from data to pixels. */
export function scaleOf({ domain, log = false, ticks }, range) {
  const via = log ? Math.log10 : (value) => value;
  const [low, high] = domain.map(via);
  const span = high - low || 1;
  const scale = (value) => range[0] + ((via(value) - low) / span) * (range[1] - range[0]);
  scale.ticks = ticks ?? (log ? powersOf(domain[0], domain[1]) : ticksOf(domain[0], domain[1]));
  return scale;
}

const short = (value) => (Math.abs(value) >= 10_000 ? `${+(value / 1000).toPrecision(4)}k` : String(value));

/**
 * A chart that redraws itself when its box changes.
 *
 * x, y: {label, domain, log, ticks, format}. series: [{points: [{x, y, low, high, ...}], colour, shape: "line" |
 * "step" | "dots", dashed, label, radius}]. tip(point, series) gives lines; click(point, series) makes points open.
 */
export function chart(options) {
  const box = h("figure", {});
  const { caption, label } = options;
  const legend = options.legend === false ? null : legendOf(options.series);
  const svg = s("svg", {
    class: "chart",
    role: "img",
    "aria-label": label ?? caption ?? "chart",
    tabindex: 0,
  });
  box.append(...[legend, svg, caption && h("figcaption", {}, caption)].filter(Boolean));
  const draw = () => drawInto(svg, options);
  const watcher = new ResizeObserver(() => (box.isConnected ? draw() : watcher.disconnect()));
  watcher.observe(box);
  return box;
}

function legendOf(series) {
  const named = series.filter((entry) => entry.label);
  if (named.length < 2) return null;
  return h(
    "div",
    { class: "legend" },
    named.map((entry) =>
      h(
        "span",
        {},
        s(
          "svg",
          { viewBox: "0 0 26 16" },
          entry.shape === "dots"
            ? s("circle", { cx: 13, cy: 8, r: 5, fill: entry.colour })
            : s("path", {
                d: "M1 8H25",
                stroke: entry.colour,
                "stroke-width": 3,
                "stroke-dasharray": entry.dashed ? "5 4" : null,
              }),
        ),
        entry.label,
      ),
    ),
  );
}

function drawInto(svg, options) {
  const width = Math.max(svg.parentElement.clientWidth, 200);
  const height = options.height ?? 300;
  const margin = { left: options.margin ?? 52, right: 14, top: 12, bottom: 42 };
  const x = scaleOf(options.x, [margin.left, width - margin.right]);
  const y = scaleOf(options.y, [height - margin.bottom, margin.top]);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  show(
    svg,
    axes(options, x, y, { width, height, margin }),
    options.series.map((entry) => drawSeries(entry, x, y)),
  );
  addCursor(svg, options, x, y);
}

function axes(options, x, y, { width, height, margin }) {
  const bottom = height - margin.bottom;
  const format = (axis, value) => (axis.format ? axis.format(value) : short(value));
  let last = -Infinity;
  const along = x.ticks.filter((at) => {
    // leave out what would overlap
    const wide = format(options.x, at).length * 7 + 8;
    if (x(at) - last < wide) return false;
    last = x(at);
    return true;
  });
  return s(
    "g",
    { class: "axis" },
    y.ticks.map((at) => [
      s("line", { class: "gridline", x1: margin.left, x2: width - margin.right, y1: y(at), y2: y(at) }),
      s("text", { x: margin.left - 8, y: y(at) + 4, "text-anchor": "end" }, format(options.y, at)),
    ]),
    along.map((at) =>
      s("text", { x: x(at), y: bottom + 17, "text-anchor": "middle" }, format(options.x, at)),
    ),
    s("line", { x1: margin.left, x2: width - margin.right, y1: bottom, y2: bottom }),
    s(
      "text",
      { class: "title", x: (margin.left + width - margin.right) / 2, y: height - 6, "text-anchor": "middle" },
      options.x.label,
    ),
    s(
      "text",
      {
        class: "title",
        transform: `translate(13 ${(margin.top + bottom) / 2}) rotate(-90)`,
        "text-anchor": "middle",
      },
      options.y.label,
    ),
  );
}

function drawSeries(entry, x, y) {
  const points = entry.points.filter((point) => Number.isFinite(point.y));
  if (entry.shape === "dots") {
    // One path of zero-length strokes: thousands of dots at the price of one element.
    const d = points.map((point) => `M${x(point.x).toFixed(1)} ${y(point.y).toFixed(1)}h0`).join("");
    return s("path", {
      d,
      stroke: entry.colour,
      fill: "none",
      "stroke-linecap": "round",
      "stroke-width": (entry.radius ?? 3) * 2,
      opacity: entry.opacity ?? 0.7,
    });
  }
  const line = points
    .map((point, place) => {
      const at = `${x(point.x).toFixed(1)} ${y(point.y).toFixed(1)}`;
      if (place === 0) return `M${at}`;
      return entry.shape === "step" ? `H${x(point.x).toFixed(1)}V${y(point.y).toFixed(1)}` : `L${at}`;
    })
    .join("");
  const intervals = points
    .filter((point) => point.low !== undefined && point.high !== undefined)
    .map((point) =>
      [
        `M${x(point.x)} ${y(point.low)}V${y(point.high)}`,
        `M${x(point.x) - 4} ${y(point.low)}h8M${x(point.x) - 4} ${y(point.high)}h8`,
      ].join(""),
    )
    .join("");
  return s(
    "g",
    { opacity: entry.opacity ?? 1 },
    s("path", {
      d: line,
      fill: "none",
      stroke: entry.colour,
      "stroke-width": entry.width ?? 2,
      "stroke-linejoin": "round",
      "stroke-dasharray": entry.dashed ? "5 4" : null,
    }),
    intervals && s("path", { d: intervals, fill: "none", stroke: entry.colour, "stroke-width": 1.3 }),
    entry.shape !== "step" || points.length < 60
      ? points.map((point) =>
          s("circle", {
            cx: x(point.x),
            cy: y(point.y),
            r: point.r ?? entry.radius ?? 3.4,
            fill: entry.colour,
          }),
        )
      : null,
  );
}

/** One ring that mouse and arrow keys move from point to point. */
function addCursor(svg, options, x, y) {
  const all = options.series.flatMap((entry) =>
    entry.silent
      ? []
      : entry.points
          .filter((point) => Number.isFinite(point.y))
          .map((point) => ({ point, entry, px: x(point.x), py: y(point.y) })),
  );
  if (!options.tip || !all.length) return;
  all.sort((a, b) => a.px - b.px || a.py - b.py);
  const ring = s("circle", { class: "ring", r: 7, "data-cursor": true, visibility: "hidden" });
  svg.append(ring);
  let active = -1;
  const light = (place) => {
    active = place;
    if (place < 0) {
      ring.setAttribute("visibility", "hidden");
      return hideTip();
    }
    const { point, entry, px, py } = all[place];
    ring.setAttribute("cx", px);
    ring.setAttribute("cy", py);
    ring.setAttribute("visibility", "visible");
    const frame = svg.getBoundingClientRect();
    showTip(frame.left + px, frame.top + py, ...options.tip(point, entry));
    svg.style.cursor = options.click ? "pointer" : "";
  };
  const nearest = (event) => {
    const frame = svg.getBoundingClientRect();
    const [mx, my] = [event.clientX - frame.left, event.clientY - frame.top];
    let [best, least] = [-1, 28 ** 2];
    all.forEach(({ px, py }, place) => {
      const distance = (px - mx) ** 2 + (py - my) ** 2;
      if (distance < least) [best, least] = [place, distance];
    });
    return best;
  };
  const open = () => active >= 0 && options.click?.(all[active].point, all[active].entry);
  svg.onpointermove = (event) => light(nearest(event));
  svg.onpointerleave = svg.onblur = () => light(-1);
  svg.onclick = (event) => {
    light(nearest(event));
    open();
  };
  svg.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -all.length, End: all.length }[event.key];
    if (step) light(Math.max(0, Math.min(all.length - 1, active + step)));
    else if (event.key === "Enter") open();
    else if (event.key === "Escape") light(-1);
    else return;
    event.preventDefault();
  };
}

/** A domain with air above; never empty. */
export function span(values, { from, to, air = 0.05 } = {}) {
  const finite = values.filter(Number.isFinite);
  let [low, high] = finite.length ? [Math.min(...finite), Math.max(...finite)] : [0, 1];
  low = from ?? low;
  high = to ?? high;
  if (high <= low) high = low + 1;
  return [
    from === undefined ? low - (high - low) * air : low,
    to === undefined ? high + (high - low) * air : high,
  ];
}
