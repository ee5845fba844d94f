// Sends the picture that was dropped, pasted or chosen, and shows the scores; tells the same call in three languages.
const find = (selector) => document.querySelector(selector);
const input = find("#file");
const zone = find("#drop");
const preview = find("#preview");
const scores = find("#scores");
const times = find("#times");
const problem = find("#problem");
const live = find("#live");
const labels = find("#labels");
const template = find("#template");
const MOST_ROWS = 20;
const PAUSE_MS = 400;
const SHOWN_MS = 2000;

let picture = null;
let newest = 0;

function choose(file) {
  if (!file) return;
  picture = file;
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(file);
  preview.alt = file.name ? `The picture ${file.name}` : "The pasted picture";
  preview.hidden = false;
  ask();
}

async function ask() {
  if (!picture) return;
  const turn = ++newest;
  const form = new FormData();
  form.append("file", picture, picture.name || "pasted.png");
  if (labels) {
    form.append("labels", labels.value);
    form.append("prompt_template", template.value);
    form.append("top_k", MOST_ROWS);
  }
  scores.classList.add("waiting");
  live.textContent = "Looking at the picture";
  try {
    const answer = await fetch("predict", { method: "POST", body: form });
    const told = await answer.json();
    if (turn !== newest) return; // another picture was chosen meanwhile
    if (answer.ok) show(told);
    else refuse(told.detail ?? `The model answered ${answer.status}.`, told.mend ?? "");
  } catch {
    if (turn === newest) refuse("The model did not answer.", "Look whether the server runs, then choose the picture again.");
  } finally {
    if (turn === newest) scores.classList.remove("waiting");
  }
}

function show(told) {
  problem.hidden = true;
  scores.replaceChildren(...told.predictions.map(row));
  const { decode, preprocess, infer } = told.timing_ms;
  times.textContent = `${told.image.width} × ${told.image.height} pixels; decoded in ${decode} ms, prepared in ${preprocess} ms, answered in ${infer} ms`;
  const [best] = told.predictions;
  live.textContent = best ? `${best.label}, ${percent(best.score)}` : "No label reaches the threshold";
}

function row({ label, score }) {
  const item = document.createElement("li");
  const name = element("span", "name", label);
  if (!labels && label.includes(", ")) {
    const [first, ...others] = label.split(", ");
    name.textContent = first;
    name.append(element("span", "also", ` ${others.join(", ")}`));
  }
  const bar = element("div", "bar");
  bar.setAttribute("aria-hidden", "true");
  const filled = document.createElement("i");
  filled.style.width = percent(score);
  bar.append(filled);
  item.append(name, element("span", "share", percent(score)), bar);
  return item;
}

function refuse(detail, mend) {
  scores.replaceChildren();
  times.textContent = "";
  problem.replaceChildren(element("p", "", detail), element("p", "", mend));
  problem.hidden = false;
  live.textContent = `${detail} ${mend}`;
}

function element(kind, name, text = "") {
  const made = document.createElement(kind);
  if (name) made.className = name;
  made.textContent = text;
  return made;
}

const percent = (score) => `${(score * 100).toFixed(1)}%`;

// --- the ways in
input.addEventListener("change", () => choose(input.files[0]));
choose(input.files[0]); // chosen before this script had come, or kept by a reload
document.addEventListener("paste", (event) => choose([...event.clipboardData.files].find((file) => file.type.startsWith("image/"))));
document.addEventListener("dragover", (event) => {
  if (!event.dataTransfer?.types.includes("Files")) return;
  event.preventDefault();
  zone.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) zone.classList.remove("over"); // left the window, not one element for another
});
document.addEventListener("drop", (event) => {
  if (!event.dataTransfer?.types.includes("Files")) return;
  event.preventDefault();
  zone.classList.remove("over");
  choose(event.dataTransfer.files[0]);
});

// --- labels of one's own
let pause;
for (const field of [labels, template].filter(Boolean)) {
  field.addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(ask, PAUSE_MS);
    tellCalls();
  });
}

// --- the same call elsewhere
function tellCalls() {
  const local = location.hostname.endsWith("localhost");
  const origin = `${location.protocol}//localhost${location.port ? `:${location.port}` : ""}`;
  const path = `/m/${document.body.dataset.model}/predict`;
  const own = labels ? labels.value.split("\n").map((line) => line.trim()).filter(Boolean).join(",") : "";
  const quoted = JSON.stringify(own);
  const asks = template && template.value !== template.defaultValue ? template.value : "";
  const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const put = (id, text) => {
    find(id).textContent = text;
  };
  put("#call-curl", [
    `curl ${local ? origin + path : `"$MODELYARD_SERVER${path}"`} \\`,
    '  -H "Authorization: Bearer ${MODELYARD_TOKEN:-$(modelyard token)}" \\',
    `  -F file=@photo.jpg${labels ? ` \\\n  -F labels=${shell(own)}` : ""}${asks ? ` \\\n  -F prompt_template=${shell(asks)}` : ""}`,
  ].join("\n"));
  put("#call-python", `import os

import requests

answer = requests.post(
    ${local ? `"${origin}${path}"` : `os.environ["MODELYARD_SERVER"] + "${path}"`},
    headers={"Authorization": f"Bearer {os.environ['MODELYARD_TOKEN']}"},
    files={"file": open("photo.jpg", "rb")},${labels ? `\n    data={"labels": ${quoted}${asks ? `, "prompt_template": ${JSON.stringify(asks)}` : ""}},` : ""}
    timeout=60,
)
answer.raise_for_status()
print(answer.json()["predictions"])`);
  put("#call-javascript", `import { openAsBlob } from "node:fs";

const form = new FormData();
form.append("file", await openAsBlob("photo.jpg"));${labels ? `\nform.append("labels", ${quoted});` : ""}${asks ? `\nform.append("prompt_template", ${JSON.stringify(asks)});` : ""}
const answer = await fetch(${local ? `"${origin}${path}"` : `process.env.MODELYARD_SERVER + "${path}"`}, {
  method: "POST",
  headers: { Authorization: \`Bearer \${process.env.MODELYARD_TOKEN}\` },
  body: form,
});
if (!answer.ok) throw new Error(\`\${answer.status}: \${await answer.text()}\`);
console.log((await answer.json()).predictions);`);
}
tellCalls();

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copy);
    let word = "Copied";
    try {
      await navigator.clipboard.writeText(source.textContent);
    } catch {
      getSelection().selectAllChildren(source);
      word = "Selected";
    }
    button.textContent = live.textContent = word;
    setTimeout(() => {
      button.textContent = "Copy";
    }, SHOWN_MS);
  });
}

// --- light or dark
const theme = find("#theme");
const dark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const name = () => {
  theme.textContent = dark() ? "Light" : "Dark";
  theme.setAttribute("aria-label", `Switch to the ${dark() ? "light" : "dark"} scheme`);
};
theme.addEventListener("click", () => {
  document.documentElement.dataset.theme = dark() ? "light" : "dark";
  name();
});
name();
