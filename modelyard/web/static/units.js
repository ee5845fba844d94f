// Writes bytes and seconds for people.
const KILO = 1000;
const UNITS = ["B", "kB", "MB", "GB"];
const MINUTE_S = 60;

export function size(bytes) {
  let value = bytes;
  let unit = 0;
  while (value >= KILO && unit < UNITS.length - 1) {
    value /= KILO;
    unit += 1;
  }
  return `${unit ? value.toFixed(1) : value} ${UNITS[unit]}`;
}

export function duration(seconds) {
  if (seconds < MINUTE_S) return `${Math.max(1, Math.round(seconds))} s`;
  return `${Math.floor(seconds / MINUTE_S)} min ${Math.round(seconds % MINUTE_S)} s`;
}
