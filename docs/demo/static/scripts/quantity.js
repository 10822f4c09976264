// The minus and plus next to the number of tins.
for (const stepper of document.querySelectorAll("[data-stepper]")) {
  const input = stepper.querySelector("input");
  stepper.addEventListener("click", ({ target }) => {
    if (target.dataset.step > 0) input.stepUp();
    else if (target.dataset.step < 0) input.stepDown();
  });
}
