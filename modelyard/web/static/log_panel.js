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
    this.top = 0; // where the last scrolling left off: only the reader scrolls up
    this.box.addEventListener("scroll", () => this.scrolled());
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
    if (this.following) requestAnimationFrame(() => this.follow());
  }

  follow() {
    while (this.lines.childElementCount > MOST_LINES) this.lines.firstElementChild.remove();
    this.box.scrollTop = this.box.scrollHeight;
    this.top = this.box.scrollTop;
  }

  scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.box;
    if (scrollHeight - scrollTop - clientHeight < NEAR_PX) this.following = true;
    else if (scrollTop < this.top) this.following = false;
    this.top = scrollTop;
    this.toEnd.hidden = this.following;
  }
}
