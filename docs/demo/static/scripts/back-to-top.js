// Offers the way back once the page has been scrolled.
const arrow = document.querySelector("[data-to-top]");
const look = () => (arrow.hidden = scrollY < 600);
addEventListener("scroll", look, { passive: true });
look();
