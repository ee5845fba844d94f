// Shows a problem document (RFC 9457) above the form and at its fields: each entry leads to its field.
const box = document.querySelector("#problem");
const REFUSED = new Set([413, 422]); // too large, or read and refused

export function clearProblem(form) {
  box.hidden = true;
  for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  for (const place of form.querySelectorAll(".error")) place.textContent = "";
  document.title = document.title.replace(/^Error: /, "");
}

export function showProblem(form, problem) {
  clearProblem(form);
  const entries = entriesOf(form, problem);
  box.querySelector("ul").replaceChildren(...entries.map(item));
  box.querySelector(".mend").textContent = problem.mend ?? "";
  for (const { field, message } of entries) if (field) mark(field, message);
  document.title = `Error: ${document.title}`;
  box.hidden = false;
  box.focus();
}

// One entry is told by the whole sentence of `detail`; several each by their own. Content that was refused without a field is the file.
function entriesOf(form, { detail, status, errors = [] }) {
  const fieldOf = (error) => form.elements.namedItem(error.field ?? (REFUSED.has(status) ? "file" : ""));
  if (errors.length <= 1) return [{ field: fieldOf(errors[0] ?? {}), message: detail }];
  return errors.map((error) => ({
    field: fieldOf(error),
    message: error.field ? error.message : [error.entry, error.message].filter(Boolean).join(": "),
  }));
}

function item({ field, message }) {
  const line = document.createElement("li");
  const text = document.createElement(field ? "a" : "span");
  text.textContent = message;
  if (field) {
    text.href = `#${field.id}`;
    text.addEventListener("click", (event) => {
      event.preventDefault();
      field.focus();
    });
  }
  line.append(text);
  return line;
}

function mark(field, message) {
  field.setAttribute("aria-invalid", "true");
  document.getElementById(`${field.id}-error`).textContent = message;
}
