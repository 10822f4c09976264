// Adds a line about the season to the greeting.
const season = await (await fetch("/api/season")).json();
const note = document.querySelector("[data-season]");
if (note) note.textContent = `${season.name}: ${season.note}`;
