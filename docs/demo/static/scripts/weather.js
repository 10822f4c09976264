// Suggests a tea for today's weather.
const today = await (await fetch("/api/weather")).json();
const line = document.querySelector("[data-weather]");
if (line) {
  const link = Object.assign(document.createElement("a"), { href: `/tea/${today.slug}`, textContent: today.tea });
  line.replaceChildren(`${today.sky}. A day for `, link, ".");
}
