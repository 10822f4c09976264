// Shows what customers say, one after the other.
const { reviews } = await (await fetch("/api/reviews")).json();
const quote = document.querySelector("[data-review]");
let turn = 0;

function next() {
  const { text, by } = reviews[turn++ % reviews.length];
  const who = Object.assign(document.createElement("cite"), { textContent: by });
  quote.replaceChildren(`“${text}” `, who);
}

next();
setInterval(next, 9000);
