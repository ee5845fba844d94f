// Brings to life whatever the page has: copy buttons, the upload form, a build.
import { watchBuild } from "./build.js";
import { offerCopies } from "./copy.js";
import { offerUpload } from "./upload.js";

offerCopies(document);

const form = document.querySelector("#upload");
if (form) offerUpload(form);

const build = document.querySelector("[data-build]");
if (build) watchBuild(build);
