// Fills the little cart that unfolds from the header, and folds it when one clicks elsewhere.
const box = document.querySelector("[data-mini-cart]");
const answer = await fetch("/cart/preview");
if (answer.ok) document.querySelector("[data-cart-preview]").innerHTML = await answer.text();

document.addEventListener("click", (event) => {
  if (!box.contains(event.target)) box.open = false;
});
