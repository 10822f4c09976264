// Counts a tea's brewing time down in the button that started it.
const guide = await (await fetch("/api/brewing")).json();
const button = document.querySelector("[data-brew]");

function count(secondsLeft) {
  const minutes = Math.floor(secondsLeft / 60);
  button.textContent = secondsLeft > 0 ? `${minutes}:${String(secondsLeft % 60).padStart(2, "0")}` : "Pour!";
  if (secondsLeft > 0) setTimeout(count, 1000, secondsLeft - 1);
}

button?.addEventListener("click", () => count(guide[button.dataset.brew].minutes * 60), { once: true });
