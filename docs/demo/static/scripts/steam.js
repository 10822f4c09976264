// The picture of the kettle drifts a little while one scrolls, unless motion is unwelcome.
const picture = document.querySelector("[data-steam]");
if (picture && !matchMedia("(prefers-reduced-motion: reduce)").matches) {
  const drift = () => picture.style.setProperty("--drift", `${Math.min(scrollY / 14, 24)}px`);
  addEventListener("scroll", drift, { passive: true });
}
