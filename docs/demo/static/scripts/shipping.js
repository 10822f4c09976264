// Says in the footer from which amount delivery is free.
const { freeFromPence } = await (await fetch("/api/shipping")).json();
const pounds = new Intl.NumberFormat("en-GB", { style: "currency", currency: "GBP", maximumFractionDigits: 0 });
document.querySelector("[data-shipping]").textContent = `Free delivery from ${pounds.format(freeFromPence / 100)}.`;
