// "/" goes to the search box, Escape leaves it.
const box = document.querySelector("[data-search]");
addEventListener("keydown", (event) => {
  if (event.key === "Escape") box.blur();
  if (event.key !== "/" || event.target.matches("input, select, textarea")) return;
  event.preventDefault();
  box.focus();
});
