// Shows how far an upload has come: a bar, the bytes, and the time that is left.
import { announce } from "./live.js";
import { duration, size } from "./units.js";

const QUARTER = 25;
const SURE_AFTER_S = 0.5; // before that a rate says nothing

export class Meter {
  constructor(name) {
    this.panel = document.querySelector("#transfer");
    this.bar = document.querySelector("#transfer-bar");
    this.text = document.querySelector("#transfer-text");
    this.title = document.querySelector("#transfer-title");
    this.title.textContent = `Uploading ${name}`;
    this.text.textContent = "Starting";
    this.bar.value = 0;
    this.began = performance.now();
    this.quarter = 0;
    this.panel.hidden = false;
    this.title.focus();
  }

  get seconds() {
    return (performance.now() - this.began) / 1000;
  }

  show(loaded, total) {
    const percent = Math.floor((loaded / total) * 100);
    this.bar.value = percent;
    this.text.textContent = [`${size(loaded)} of ${size(total)}`, `${percent} %`, this.left(loaded, total)].filter(Boolean).join(", ");
    if (loaded === total) this.checking();
    else if (percent >= this.quarter + QUARTER) this.tell(percent);
  }

  hide() {
    this.panel.hidden = true;
  }

  left(loaded, total) {
    if (this.seconds < SURE_AFTER_S || !loaded) return "";
    return `about ${duration(((total - loaded) * this.seconds) / loaded)} left`;
  }

  tell(percent) {
    this.quarter = percent - (percent % QUARTER);
    announce(`${this.quarter} % uploaded`);
  }

  checking() {
    this.text.textContent += ". All sent; the server is checking the zip.";
    announce("Uploaded. The server is checking the zip.");
  }
}
