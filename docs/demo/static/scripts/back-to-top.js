// Shows the link to the top after the page was scrolled.
const arrow = document.querySelector("[data-to-top]");
const look = () => (arrow.hidden = scrollY < 600);
addEventListener("scroll", look, { passive: true });
look();
