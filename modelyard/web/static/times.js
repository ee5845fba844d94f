// Tells every time in the reader's own zone and manner, and names the zone; without a script the page tells it in UTC.
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit", timeZoneName: "short" });

export function tellTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(time.dateTime);
    time.title = time.textContent;
    time.replaceChildren(part(day.format(moment)), " ", part(clock.format(moment)));
  }
}

// A narrow column breaks between day and clock, and nowhere else.
function part(text) {
  const made = document.createElement("span");
  made.textContent = text;
  return made;
}
