// Filters the shelf by name or kind while the visitor types.
const box = document.querySelector("[data-search]");
const cards = [...document.querySelectorAll("[data-cards] > li")];
const nothing = document.querySelector("[data-nothing]");
const { words } = await (await fetch("/api/suggestions")).json();
box.list.append(...words.map((word) => new Option(word)));

function narrow() {
  const wanted = box.value.trim().toLowerCase();
  for (const card of cards) {
    card.hidden = !`${card.dataset.name} ${card.dataset.kind}`.toLowerCase().includes(wanted);
  }
  if (nothing) nothing.hidden = cards.some((card) => !card.hidden);
}

box.value = new URLSearchParams(location.search).get("q") ?? "";
box.addEventListener("input", narrow);
if (box.value) narrow();
