// Shows a log as it grows: each line once, and the end in view until the reader scrolls up.
const NEAR_PX = 24;
const MOST_LINES = 5000;

export class LogPanel {
  constructor(root) {
    this.box = root.querySelector("#log");
    this.lines = this.box.querySelector(".lines");
    this.toEnd = root.querySelector("#log-end");
    this.last = Number(this.lines.lastElementChild?.dataset.n ?? 0);
    this.following = true;
    this.box.addEventListener("scroll", () => {
      this.following = this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < NEAR_PX;
      this.toEnd.hidden = this.following;
    });
    this.toEnd.addEventListener("click", () => {
      this.following = true;
      this.follow();
      this.box.focus();
    });
    this.follow();
  }

  // A stream that begins anew tells lines again that are here already: their numbers say so.
  add({ n, text }) {
    if (n <= this.last) return;
    this.last = n;
    const line = document.createElement("div");
    line.className = "line";
    line.dataset.n = n;
    line.textContent = text;
    this.lines.append(line);
    if (this.lines.childElementCount > MOST_LINES) this.lines.firstElementChild.remove();
    if (this.following) requestAnimationFrame(() => this.follow());
  }

  follow() {
    this.box.scrollTop = this.box.scrollHeight;
  }
}
