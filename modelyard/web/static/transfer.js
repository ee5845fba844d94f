// Sends a form with byte progress; resolves to the answer, rejects with a problem document.
const LOST = {
  detail: "The connection to the server was lost before the upload ended.",
  mend: "See that the server runs, and that the zip is not larger than its limit; then upload again.",
};

export function send(url, form, progress) {
  const call = new XMLHttpRequest();
  const answer = new Promise((resolve, reject) => {
    call.upload.addEventListener("progress", (event) => progress(event.loaded, event.total));
    call.addEventListener("load", () => (call.status < 300 ? resolve(call.response) : reject(problemOf(call))));
    call.addEventListener("error", () => reject(LOST));
    call.addEventListener("abort", () => reject(null));
  });
  call.open("POST", url);
  call.responseType = "json";
  call.setRequestHeader("accept", "application/json");
  call.send(new FormData(form));
  return { answer, cancel: () => call.abort() };
}

function problemOf(call) {
  if (call.response?.detail) return call.response;
  return { detail: `The server answered ${call.status} without saying why.`, mend: "Upload again; if it happens again, see the server's log." };
}
