// Takes a file that is dropped anywhere on the page, and shows which one was chosen.
import { size } from "./units.js";

export function offerDrop(input, onChosen) {
  const veil = document.querySelector("#veil");
  const chosen = document.querySelector("#file-chosen");
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  const show = () => {
    const [file] = input.files;
    chosen.textContent = file ? `${file.name}, ${size(file.size)}` : "No file chosen";
    if (file) onChosen(file);
  };

  input.addEventListener("change", show);
  document.addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    veil.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) veil.hidden = true; // left the window, not one element for another
  });
  document.addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    veil.hidden = true;
    input.files = event.dataTransfer.files;
    show();
    input.focus();
  });
  show(); // a reload keeps the choice
}
