// Downloads: JSON, CSV, and PNG from a chart's own SVG. Nothing leaves the machine.

import { h, notice } from "./dom.js";

function download(name, blob) {
  const address = URL.createObjectURL(blob);
  const anchor = h("a", { href: address, download: name });
  document.body.append(anchor);
  anchor.click();
  anchor.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

export function saveJson(name, value) {
  download(`${name}.json`, new Blob([`${JSON.stringify(value, null, 2)}\n`], { type: "application/json" }));
}

/** Rows as RFC 4180; a cell that a spreadsheet would run as a formula is kept text by an apostrophe. */
export function toCsv(columns, rows) {
  const cell = (value) => {
    let text = value === null || value === undefined ? "" : String(value);
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /[",\n\r]/.test(text) || text !== text.trim() ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return `${[columns, ...rows].map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`;
}

export function saveCsv(name, columns, rows) {
  download(`${name}.csv`, new Blob([toCsv(columns, rows)], { type: "text/csv" }));
}

const COPIED = [
  "fill",
  "stroke",
  "stroke-width",
  "stroke-dasharray",
  "stroke-linecap",
  "stroke-linejoin",
  "opacity",
  "font-size",
  "font-weight",
  "font-family",
  "text-anchor",
  "dominant-baseline",
];

/** One SVG with every style written out, so that it looks the same outside the page. */
function standalone(svg) {
  const copy = svg.cloneNode(true);
  const [from, to] = [svg, copy].map((root) => [root, ...root.querySelectorAll("*")]);
  from.forEach((element, place) => {
    const style = getComputedStyle(element);
    for (const name of COPIED) to[place].setAttribute(name, style.getPropertyValue(name));
    to[place].removeAttribute("class");
  });
  for (const element of copy.querySelectorAll("[data-cursor]")) element.remove();
  return copy;
}

/** Charts below one another as one PNG, at twice their size. */
export async function savePng(name, charts, title = "") {
  if (!charts.length) return notice("There is no chart to save yet.");
  const style = getComputedStyle(document.body);
  const sizes = charts.map((svg) => svg.getBoundingClientRect());
  const width = Math.max(...sizes.map((size) => size.width));
  const top = title ? 28 : 0;
  const height = top + sizes.reduce((sum, size) => sum + size.height, 0);
  const canvas = h("canvas", { width: Math.round(width * 2), height: Math.round(height * 2) });
  const brush = canvas.getContext("2d");
  brush.scale(2, 2);
  brush.fillStyle = style.getPropertyValue("--panel");
  brush.fillRect(0, 0, width, height);
  brush.fillStyle = style.getPropertyValue("--ink");
  brush.font = `600 14px ${style.fontFamily}`;
  if (title) brush.fillText(title, 8, 18, width - 16);
  let y = top;
  for (const [place, svg] of charts.entries()) {
    const copy = standalone(svg);
    copy.setAttribute("width", sizes[place].width);
    copy.setAttribute("height", sizes[place].height);
    const image = new Image();
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(new XMLSerializer().serializeToString(copy))}`;
    await image.decode();
    brush.drawImage(image, 0, y);
    y += sizes[place].height;
  }
  canvas.toBlob((blob) => download(`${name}.png`, blob), "image/png");
}

/** The row of a view's downloads and its link. */
export function saves({ json, csv, png }) {
  const guard = (work) => async () => {
    try {
      await work();
    } catch (error) {
      notice(`That could not be saved: ${error.message}`);
    }
  };
  return h(
    "div",
    { class: "saves" },
    h("button", { type: "button", onclick: copyLink }, "Copy link"),
    json && h("button", { type: "button", onclick: guard(json) }, "JSON"),
    csv && h("button", { type: "button", onclick: guard(csv) }, "CSV"),
    png && h("button", { type: "button", onclick: guard(png) }, "PNG"),
  );
}

async function copyLink() {
  try {
    await navigator.clipboard.writeText(location.href);
    notice("The link is copied: it restores this view.");
  } catch {
    notice(
      "This browser does not allow copying. Copy the address of the page instead: it restores this view.",
    );
  }
}
