// Moves the picture of the kettle while the page scrolls, unless the visitor prefers reduced motion.
const picture = document.querySelector("[data-steam]");
if (picture && !matchMedia("(prefers-reduced-motion: reduce)").matches) {
  const drift = () => picture.style.setProperty("--drift", `${Math.min(scrollY / 14, 24)}px`);
  addEventListener("scroll", drift, { passive: true });
}
