// Numbers as a person reads them, and elements without markup in strings: everything from the wire is text, never HTML.

export function rate(value) {
  if (value === 0) return "0/s";
  return (value >= 100 ? Math.round(value).toLocaleString("en") : value >= 10 ? value.toFixed(1) : value.toFixed(2)) + "/s";
}

export function share(errors, all) {
  if (!all || !errors) return "0 %";
  const percent = (100 * errors) / all;
  return (percent >= 10 ? percent.toFixed(0) : percent >= 0.1 ? percent.toFixed(1) : "<0.1") + " %";
}

export function grade(errors, all) {
  if (!errors) return "ok";
  return errors / all >= 0.05 ? "bad" : "some";
}

export function milliseconds(value) {
  if (!value) return "–";
  if (value >= 1000) return (value / 1000).toFixed(value >= 10000 ? 1 : 2) + " s";
  if (value >= 1) return value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2) + " ms";
  return Math.round(value * 1000) + " µs";
}

export const nanoseconds = (value) => (value === null ? "–" : milliseconds(value / 1e6) === "–" ? "0 µs" : milliseconds(value / 1e6));

export function bytes(value) {
  for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
    if (value >= size) return (value / size).toFixed(value / size >= 100 ? 0 : 1) + " " + unit;
  }
  return value + " B";
}

export const count = (value) => value.toLocaleString("en");

export function clock(ms) {
  const at = new Date(ms);
  const two = (value) => String(value).padStart(2, "0");
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, "0")}`;
}

// An element with attributes (`text` is its text) and children.
export function make(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function draw(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") element.textContent = value;
    else if (value !== undefined && value !== null) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

// Sets text only where it differs, so that nothing is laid out or read aloud for nothing.
export function say(element, text, className) {
  if (element.textContent !== text) element.textContent = text;
  if (className !== undefined && element.className !== className) element.className = className;
}
