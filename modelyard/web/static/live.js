// Says what happens to those who do not see it: one polite live region for the whole page.
const region = document.querySelector("#live");

export function announce(text) {
  if (region.textContent !== text) region.textContent = text;
}
