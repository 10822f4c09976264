// Fills the small cart of the header when it opens, and closes it after a click elsewhere.
const box = document.querySelector("[data-mini-cart]");
const answer = await fetch("/cart/preview");
if (answer.ok) document.querySelector("[data-cart-preview]").innerHTML = await answer.text();

document.addEventListener("click", (event) => {
  if (!box.contains(event.target)) box.open = false;
});
