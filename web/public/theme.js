(function () {
  try {
    var chosen = localStorage.getItem("gleaner.theme");
    if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  } catch (e) {
    /* storage is blocked: the system's preference applies */
  }
})();
