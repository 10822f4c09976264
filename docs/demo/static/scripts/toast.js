// Removes a message after a while, or at once when it is clicked.
for (const toast of document.querySelectorAll("[data-toast]")) {
  const leave = () => toast.classList.add("gone");
  toast.addEventListener("click", leave);
  setTimeout(leave, 6000);
}
