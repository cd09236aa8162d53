// Making elements. Every string becomes a text node or an attribute: none is ever read as HTML.

/** An element. Of `props`, functions are listeners, true and false switch attributes, the rest are attributes. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** An element of a drawing. */
export function svg(tag, props = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(props)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/** Call `work` when `input` was left alone for a moment. */
export function settled(work, milliseconds = 250) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, milliseconds);
  };
}

const percent = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 0 });
const whole = new Intl.NumberFormat();

export const asPercent = (value) => percent.format(value);
export const asCount = (value) => whole.format(value);

export function asNumber(value) {
  if (value === 0) return "0";
  if (Math.abs(value) >= 100) return whole.format(Math.round(value));
  return String(Number(value.toPrecision(2)));
}

export function asSeconds(value) {
  if (value === 0) return "0";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 120) return `${asNumber(value)} s`;
  return value < 7200 ? `${Math.round(value / 60)} min` : `${Math.round(value / 3600)} h`;
}

/** A moment (milliseconds since 1970) in the reader's own time; with the date if it is not today. */
export function asTime(milliseconds) {
  const moment = new Date(milliseconds);
  const today = new Date().toDateString() === moment.toDateString();
  return today ? moment.toLocaleTimeString() : moment.toLocaleString();
}

export const plural = (count, one, many = `${one}s`) => `${asCount(count)} ${count === 1 ? one : many}`;
