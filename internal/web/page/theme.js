// The theme is set before anything is drawn, so that nothing flashes.
"use strict";
(() => {
  try {
    const theme = localStorage.getItem("twwatch-theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch { /* no storage: the system's theme */ }
})();
