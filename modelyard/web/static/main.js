// Brings to life whatever the page has: times, copy buttons, the upload form, a build, a model's output.
import { watchBuild } from "./build.js";
import { offerCopies } from "./copy.js";
import { showOutput } from "./output.js";
import { tellTimes } from "./times.js";
import { offerUpload } from "./upload.js";

tellTimes(document);
offerCopies(document);

const form = document.querySelector("#upload");
if (form) offerUpload(form);

const build = document.querySelector("[data-build]");
if (build) watchBuild(build);

const output = document.querySelector("[data-output]");
if (output) showOutput(output);
