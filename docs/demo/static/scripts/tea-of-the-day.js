// Points the second button of the home page to today's tea.
const tea = await (await fetch("/api/tea-of-the-day")).json();
const link = document.querySelector("[data-tea-of-the-day]");
if (link) {
  link.href = `/tea/${tea.slug}`;
  link.textContent = `Today: ${tea.name}, ${tea.price}`;
}
