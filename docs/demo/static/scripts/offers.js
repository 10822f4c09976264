// The line above the header.
const offer = await (await fetch("/api/offers")).json();
document.querySelector("[data-offer]").textContent = offer.text;
