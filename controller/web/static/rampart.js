"use strict";
// A page that lost its stream looks as if nothing happened any more: it must say so.
(() => {
  const lost = document.getElementById("lost");
  if (!lost) return;
  const gone = () => {
    if (!lost.hidden) return;
    const since = new Date().toISOString().slice(11, 19);
    lost.textContent = `No connection since ${since} UTC: what you see may be old. It is tried again by itself.`;
    lost.hidden = false;
  };
  const back = () => { lost.hidden = true; };
  for (const name of ["htmx:sseError", "htmx:sendError", "htmx:responseError"]) document.body.addEventListener(name, gone);
  for (const name of ["htmx:sseOpen", "htmx:afterOnLoad"]) document.body.addEventListener(name, back);
})();
