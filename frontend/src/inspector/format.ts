/** Times and durations as text. All are in seconds, as in the journal. */

const CLOCK = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const DAY_AND_CLOCK = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export function formatDuration(seconds: number): string {
  const milliseconds = seconds * 1000;
  if (milliseconds < 9.95) {
    return `${removeTrailingZeros(milliseconds.toFixed(1))} ms`;
  }
  if (milliseconds < 999.5) {
    return `${milliseconds.toFixed(0)} ms`;
  }
  if (seconds < 59.95) {
    return `${removeTrailingZeros(seconds.toFixed(seconds < 9.995 ? 2 : 1))} s`;
  }
  const whole = Math.round(seconds);
  return whole < 3600
    ? `${Math.floor(whole / 60)} min ${padToTwoDigits(whole % 60)} s`
    : `${Math.floor(whole / 3600)} h ${padToTwoDigits(Math.floor(whole / 60) % 60)} min`;
}

/** Return the time since the start of the connection. It is negative if two processes' clocks differ. */
export function formatOffset(seconds: number): string {
  const size = Math.abs(seconds);
  const text = size >= 0.9995 && size < 59.9995 ? `${size.toFixed(3)} s` : formatDuration(size);
  return seconds < 0 ? `−${text}` : `+${text}`;
}

/** Return the time of the day, with the date if it is another day. */
export function formatTime(at: number, now = Date.now()): string {
  const date = new Date(at * 1000);
  return (date.toDateString() === new Date(now).toDateString() ? CLOCK : DAY_AND_CLOCK).format(date);
}

/** Return the value of a `<time>` element's `dateTime`. */
export function formatIso(at: number): string {
  return new Date(at * 1000).toISOString();
}

export function formatCount(count: number): string {
  return count.toLocaleString("en");
}

function removeTrailingZeros(digits: string): string {
  return digits.includes(".") ? digits.replace(/\.?0+$/, "") : digits;
}

function padToTwoDigits(number: number): string {
  return String(number).padStart(2, "0");
}
