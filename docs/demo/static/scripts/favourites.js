// Favorites, stored in this browser, without the session.
const loved = new Set(JSON.parse(localStorage.getItem("favourites") ?? "[]"));

function show(heart) {
  const on = loved.has(heart.dataset.favourite);
  heart.setAttribute("aria-pressed", on);
  heart.textContent = on ? "♥" : "♡";
}

for (const heart of document.querySelectorAll("[data-favourite]")) {
  show(heart);
  heart.addEventListener("click", () => {
    const tea = heart.dataset.favourite;
    if (!loved.delete(tea)) loved.add(tea);
    localStorage.setItem("favourites", JSON.stringify([...loved]));
    show(heart);
  });
}
