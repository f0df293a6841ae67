/* Owns one thing: theme and density are on <html> before the first paint, so that nothing flashes. A classic script for
   that reason. Never touches anything else; settings.js writes what is read here. */
(function () {
  try {
    const kept = JSON.parse(localStorage.getItem("pluto.settings") || "{}");
    if (kept.theme === "light" || kept.theme === "dark") document.documentElement.dataset.theme = kept.theme;
    if (["large", "normal", "compact"].includes(kept.density)) document.documentElement.dataset.density = kept.density;
  } catch {
    // Storage is off or holds nonsense: the defaults are fine.
  }
})();
