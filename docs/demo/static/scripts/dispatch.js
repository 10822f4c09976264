// Counts the hours until the bicycle leaves.
const LEAVES_AT = 15;
const line = document.querySelector("[data-dispatch]");
const now = new Date();
const leaves = new Date(now);
leaves.setHours(LEAVES_AT, 0, 0, 0);
const minutes = Math.floor((leaves - now) / 60000);
line.textContent =
  minutes > 0
    ? `The bicycle leaves in ${Math.floor(minutes / 60)} h ${minutes % 60} min.`
    : "The bicycle has left; next one tomorrow.";
