// Sorts the shelf by price, by name, or back to the order of the shelf.
const list = document.querySelector("[data-cards]");
const orders = {
  shelf: (a, b) => a.dataset.place - b.dataset.place,
  price: (a, b) => a.dataset.price - b.dataset.price,
  name: (a, b) => a.dataset.name.localeCompare(b.dataset.name),
};

document.querySelector("[data-sort]")?.addEventListener("change", (event) => {
  list.append(...[...list.children].sort(orders[event.target.value]));
});
