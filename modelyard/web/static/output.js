// Shows the last lines that a model printed, and reads them again when asked.
import { announce } from "./live.js";

export function showOutput(card) {
  const box = card.querySelector(".log");
  const note = card.querySelector("[data-note]");
  const read = async () => {
    try {
      const answer = await fetch(card.dataset.output);
      const text = answer.ok ? await answer.text() : "";
      box.textContent = text;
      box.hidden = !text;
      note.textContent = noteOn(answer, text);
    } catch {
      note.textContent = "The server does not answer; try again.";
    }
    box.scrollTop = box.scrollHeight;
  };
  card.querySelector("button").addEventListener("click", async () => {
    await read();
    announce(note.textContent || "Read again.");
  });
  read();
}

function noteOn(answer, text) {
  if (!answer.ok) return `It cannot be read: the server answered ${answer.status}.`;
  return text ? "" : "Nothing yet.";
}
