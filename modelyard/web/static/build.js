// Follows a build to its end: its log as events, its state as the fragment that the server renders.
import { announce } from "./live.js";
import { LogPanel } from "./log_panel.js";

const LOOK_EVERY_MS = 500;

// Puts the build's page in place of what `main` shows, under the build's own address.
export async function openBuild(id, uploadSeconds) {
  const path = `/upload/${encodeURIComponent(id)}`;
  const answer = await fetch(path, { headers: { accept: "text/html" } });
  if (!answer.ok) return location.assign(path);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  document.querySelector("main").replaceWith(document.adoptNode(page.querySelector("main")));
  document.title = page.title;
  document.querySelector("nav [aria-current]")?.removeAttribute("aria-current");
  history.pushState(null, "", path);
  addEventListener("popstate", () => location.reload());
  const build = document.querySelector("[data-build]");
  build.querySelector("h1").focus();
  return watchBuild(build, uploadSeconds);
}

export function watchBuild(build, uploadSeconds) {
  const log = new LogPanel(build);
  const state = new State(build, uploadSeconds);
  if (state.hasEnded()) return;
  const note = build.querySelector("#log-note");
  const stream = new EventSource(`/builds/${build.dataset.build}/log`);
  stream.addEventListener("open", () => (note.textContent = ""));
  stream.addEventListener("error", () => (note.textContent = "The connection was lost; trying again."));
  stream.addEventListener("log", (event) => log.add(JSON.parse(event.data)));
  stream.addEventListener("end", () => {
    stream.close();
    state.look();
  });
  state.keepLooking(() => {
    stream.close();
    note.textContent = "This build cannot be read any more; reload the page.";
  });
}

class State {
  constructor(build, uploadSeconds) {
    this.box = build.querySelector("#state");
    this.path = `/upload/${build.dataset.build}/state`;
    this.uploadSeconds = uploadSeconds;
    this.shown = "";
    this.tellUpload();
  }

  hasEnded() {
    return this.box.querySelector("[data-ended]") !== null;
  }

  async keepLooking(onGone) {
    while (!this.hasEnded()) {
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
      if (!(await this.look())) return onGone();
    }
  }

  // False once the server says that there is nothing to see; a server that is away may come back.
  async look() {
    let answer;
    try {
      answer = await fetch(this.path);
    } catch {
      return true;
    }
    if (answer.ok) this.show(await answer.text());
    return answer.ok || answer.status >= 500;
  }

  show(html) {
    if (html === this.shown) return;
    this.shown = html;
    const page = new DOMParser().parseFromString(html, "text/html");
    this.box.replaceChildren(...page.body.children);
    document.title = `${this.box.firstElementChild.dataset.title} - Modelyard`;
    announce(this.box.querySelector("[data-status]").textContent);
    this.tellUpload();
  }

  // Only this page knows how long the upload took.
  tellUpload() {
    if (this.uploadSeconds) this.box.querySelector('[data-stage="upload"] .took').textContent = `${this.uploadSeconds.toFixed(2)} s`;
  }
}
