// The colours of charts, by page.css: a canvas knows no style sheet.

import { h } from "./dom.js";

/** What a chart inside `element` is drawn with, in the scheme of now. */
export function chartInk(element) {
  const probe = h("span", { class: "chart-ink" });
  element.append(probe);
  const style = getComputedStyle(probe);
  const [ink, line, first, second] = ["color", "border-top-color", "outline-color", "text-decoration-color"].map((each) => style.getPropertyValue(each));
  probe.remove();
  const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  return { axis, first, second };
}
