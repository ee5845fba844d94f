// Tells every time in the reader's own zone and manner; without a script the page tells it in UTC.
const manner = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

export function tellTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    time.title = time.textContent;
    time.textContent = manner.format(new Date(time.dateTime));
  }
}
