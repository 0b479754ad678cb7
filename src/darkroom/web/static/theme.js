// Before anything is painted, so that a dark room does not flash.
(function () {
  var kept = localStorage.getItem("darkroom.theme");
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
})();
