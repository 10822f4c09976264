// The button in the header switches between light and dark, and remembers it.
const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");
const saved = localStorage.getItem("theme");
if (saved) root.dataset.theme = saved;

document.querySelector("[data-theme-toggle]").addEventListener("click", () => {
  const now = root.dataset.theme ?? (dark.matches ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
});
