// The view and everything that restores it live in the address, behind the #, which no server sees.

/** The view and its values, from the address. */
export function readLink() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return { view: path || "search", values: Object.fromEntries(new URLSearchParams(query)) };
}

/** Put a view's values into the address without a step in the history. */
export function writeLink(view, values) {
  history.replaceState(null, "", linkTo(view, values));
}

/** The address of a view with values; empty ones are left out. */
export function linkTo(view, values) {
  const kept = Object.entries(values).filter(
    ([, value]) => value !== "" && value !== null && value !== undefined,
  );
  const query = new URLSearchParams(kept.map(([key, value]) => [key, String(value)])).toString();
  return `#/${view}${query ? `?${query}` : ""}`;
}

/** Lists of lists of token ids, as a link holds them: 12.34_56; an empty list is a minus. */
export const packIds = (lists) => lists.map((ids) => ids.join(".") || "-").join("_");

export const unpackIds = (text) =>
  (text ? text.split("_").map((part) => (part === "-" ? [] : part.split(".").map(Number))) : []).filter(
    (ids) => ids.every((id) => Number.isSafeInteger(id) && id >= 0),
  );
