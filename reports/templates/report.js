"use strict";
const trials = () => document.querySelectorAll("details.trial");
const openAll = (open) => trials().forEach((trial) => { trial.open = open; });
document.querySelectorAll("button[data-open]").forEach((button) => {
  button.hidden = false;
  button.addEventListener("click", () => openAll(button.dataset.open === "yes"));
});
const openNamed = () => {
  const named = location.hash && document.getElementById(location.hash.slice(1));
  if (named && named.matches("details.trial")) { named.open = true; named.scrollIntoView(); }
};
addEventListener("hashchange", openNamed);
addEventListener("beforeprint", () => openAll(true));
openNamed();
