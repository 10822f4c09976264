// Shows how many tins are in the cart. This response needs the session.
const badge = document.querySelector("[data-cart-count]");
const cart = await (await fetch("/api/cart")).json();
badge.textContent = cart.count;
badge.hidden = cart.count === 0;
badge.title = cart.total;
