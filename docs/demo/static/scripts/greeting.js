// Greets by the time of day, and by name after signing in. This response needs the session.
const me = await (await fetch("/api/me")).json();
const line = document.querySelector("[data-greeting]");
if (line) {
  const hour = new Date().getHours();
  const part = hour < 5 ? "night" : hour < 12 ? "morning" : hour < 18 ? "afternoon" : "evening";
  line.textContent = me.name ? `Good ${part}, ${me.name}` : `Good ${part}`;
}
