// Tells while a name is typed whether it follows the rule, and offers the nearest one that does.
const RULE = /^(?!.*--)[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$/;
const LONGEST = 40;

export const isName = (text) => RULE.test(text);

export function suggest(text) {
  const trim = (value) => value.replace(/^-+|-+$/g, "");
  return trim(trim(text.toLowerCase().replace(/[^a-z0-9]+/g, "-")).slice(0, LONGEST));
}

export function offerSuggestions(input) {
  const place = document.getElementById(`${input.id}-suggestion`);
  const [words, button] = place.children;
  const show = () => {
    const better = suggest(input.value);
    place.hidden = input.value === "" || isName(input.value);
    words.textContent = better ? "Not a name yet. Use" : "Not a name yet.";
    button.textContent = better;
    button.hidden = !better;
  };
  input.addEventListener("input", show);
  button.addEventListener("click", () => {
    input.value = button.textContent;
    show();
    input.focus();
  });
}
