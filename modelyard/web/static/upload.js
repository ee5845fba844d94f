// Runs the upload form: checks it, sends it with progress, and goes on to the build on the same page.
import { openBuild } from "./build.js";
import { announce } from "./live.js";
import { offerDrop } from "./drop.js";
import { Meter } from "./meter.js";
import { isName, offerSuggestions, suggest } from "./names.js";
import { clearProblem, showProblem } from "./problems.js";
import { send } from "./transfer.js";

export function offerUpload(form) {
  const { model_name: modelName, file } = form.elements;
  form.noValidate = true; // our summary tells more than the browser's bubble
  for (const input of form.querySelectorAll("[data-name]")) offerSuggestions(input);
  offerDrop(file, ({ name }) => {
    if (!modelName.value) modelName.value = suggest(name.replace(/\.zip$/i, ""));
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const problem = refusal(form);
    if (problem) showProblem(form, problem);
    else upload(form);
  });
}

function refusal(form) {
  const { username, model_name: modelName, file } = form.elements;
  const errors = [];
  for (const [input, label] of [[username, "username"], [modelName, "model name"]]) {
    if (!isName(input.value)) errors.push({ field: input.name, message: input.value ? `The ${label} must be: ${input.title}.` : `Enter a ${label}.` });
  }
  const { files } = file;
  if (files.length !== 1) errors.push({ field: "file", message: "Choose one zip file." });
  else if (!/\.zip$/i.test(files[0].name)) errors.push({ field: "file", message: `${files[0].name} is not a .zip file.` });
  return errors.length ? { detail: errors[0].message, errors } : null;
}

async function upload(form) {
  clearProblem(form);
  form.hidden = true;
  const meter = new Meter(form.elements.file.files[0].name);
  const { answer, cancel } = send("/upload", form, (loaded, total) => meter.show(loaded, total));
  const button = document.querySelector("#transfer-cancel");
  const stay = (event) => event.preventDefault();
  button.addEventListener("click", cancel);
  addEventListener("beforeunload", stay);
  try {
    const { build_id: buildId } = await answer;
    removeEventListener("beforeunload", stay);
    await openBuild(buildId, meter.seconds);
  } catch (problem) {
    meter.hide();
    form.hidden = false;
    if (problem) showProblem(form, problem);
    else {
      announce("Upload cancelled.");
      form.elements.file.focus();
    }
  } finally {
    button.removeEventListener("click", cancel);
    removeEventListener("beforeunload", stay);
  }
}
