// Copies the address of this tea.
const button = document.querySelector("[data-share]");
button?.addEventListener("click", async () => {
  await navigator.clipboard.writeText(location.href);
  button.textContent = "Copied";
});
