// Says next to a price when a tea is nearly gone.
const stock = await (await fetch("/api/stock")).json();
for (const label of document.querySelectorAll("[data-stock]")) {
  const left = stock[label.dataset.stock];
  label.textContent = left < 10 ? `only ${left} left` : "";
}
