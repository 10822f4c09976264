// Shows whether the counter is open now.
const { days } = await (await fetch("/api/hours")).json();
const now = new Date();
const today = days[(now.getDay() + 6) % 7];
const open = today !== null && now.getHours() >= today[0] && now.getHours() < today[1];
document.querySelector("[data-open-now]").textContent = open ? "The counter is open" : "The counter is asleep";
document.querySelector("[data-hours]").textContent = today ? `today from ${today[0]} to ${today[1]}` : "all day";
