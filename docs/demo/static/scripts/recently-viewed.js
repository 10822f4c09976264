// Remembers the last three teas that were looked at, in this browser.
const here = document.querySelector("[data-viewed]");
const line = document.querySelector("[data-recent]");
const seen = JSON.parse(localStorage.getItem("seen") ?? "[]").filter(([slug]) => slug !== here?.dataset.viewed);

for (const [slug, name] of seen.slice(0, 3)) {
  const link = Object.assign(document.createElement("a"), { href: `/tea/${slug}`, textContent: name });
  line.append(" ", link);
  line.hidden = false;
}
if (here) seen.unshift([here.dataset.viewed, here.dataset.viewedName]);
localStorage.setItem("seen", JSON.stringify(seen.slice(0, 4)));
