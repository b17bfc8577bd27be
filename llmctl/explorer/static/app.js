// The frame: which view, which theme.

import { hideTip } from "./chart.js";
import { h, show } from "./dom.js";
import { readLink } from "./link.js";

const VIEWS = {
  search: () => import("./search.js"),
  set: () => import("./set.js"),
  curve: () => import("./curve.js"),
  bound: () => import("./bound.js"),
  rise: () => import("./rise.js"),
};
const main = document.getElementById("main");
let shown = null;

/** Show the view of the address; each view keeps its page, so that a search goes on while one looks elsewhere. */
const pages = {};
async function route() {
  const { view, values } = readLink();
  const name = VIEWS[view] ? view : "search";
  document.querySelectorAll("nav a").forEach((link) => {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
  hideTip();
  document.title = `${document.querySelector(`nav a[data-view=${name}]`).textContent} · llmctl explorer`;
  try {
    const { view: make } = await VIEWS[name]();
    pages[name] ??= make();
    const page = pages[name];
    if (shown !== page) show(main, page.element);
    shown = page;
    await page.open(values);
  } catch (error) {
    show(main, h("p", { class: "error", role: "alert" }, `This view cannot be shown: ${error.message}`));
    delete pages[name];
    shown = null;
  }
}

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const isDark = getComputedStyle(root).colorScheme === "dark";
  root.dataset.theme = isDark ? "light" : "dark";
  try {
    localStorage.setItem("llmctl-theme", root.dataset.theme);
  } catch {
    // No storage: the choice lasts as long as the page.
  }
});
addEventListener("hashchange", route);
addEventListener("scroll", hideTip, { passive: true });
route();
