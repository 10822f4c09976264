// Favorites, stored in this browser, without the session.
const loved = new Set(JSON.parse(localStorage.getItem("favorites") ?? "[]"));

function show(heart) {
  const on = loved.has(heart.dataset.favorite);
  heart.setAttribute("aria-pressed", on);
  heart.textContent = on ? "♥" : "♡";
}

for (const heart of document.querySelectorAll("[data-favorite]")) {
  show(heart);
  heart.addEventListener("click", () => {
    const tea = heart.dataset.favorite;
    if (!loved.delete(tea)) loved.add(tea);
    localStorage.setItem("favorites", JSON.stringify([...loved]));
    show(heart);
  });
}
