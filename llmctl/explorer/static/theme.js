// Runs before the first paint, so that a chosen theme does not flash.
(() => {
  try {
    const chosen = localStorage.getItem("llmctl-theme");
    if (chosen) document.documentElement.dataset.theme = chosen;
  } catch {
    // No storage: the system's preference stands.
  }
})();
