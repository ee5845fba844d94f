// Copies what a button's `data-copy` names; where the clipboard is closed, it selects the text instead.
import { announce } from "./live.js";

const SHOWN_MS = 2000;

export function offerCopies(root) {
  root.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      tell(button, "Copied");
    } catch {
      getSelection().selectAllChildren(source);
      tell(button, "Selected");
    }
  });
}

function tell(button, word) {
  button.textContent = word;
  announce(word);
  setTimeout(() => {
    button.textContent = "Copy";
    announce("");
  }, SHOWN_MS);
}
