// An entity's mentions by window: bars, and the same as a table.

import uPlot from "/static/vendor/uplot/uPlot.esm.js";
import { chartInk } from "./chart_ink.js";
import { asCount, asNumber, h, plural } from "./dom.js";

const HEIGHT = 150;
const MOST_BARS = 1000;
const DAY = 86400;
const STEPS = [1, 2, 3, 5, 7, 10, 14, 21, 30, 60, 100, 200, 500]; // windows between two ticks

/** A card with both. `draw` takes windows, each [its begin in ms, mentions, documents], and their length in seconds. */
export function windowChart() {
  const place = h("div", { class: "chart", "aria-hidden": "true" });
  const words = h("span", { class: "quiet" });
  const body = h("tbody");
  const head = ["window begins", "mentions", "documents"].map((each) => h("th", { scope: "col" }, each));
  const element = h("figure", { class: "card" }, h("figcaption", {}, h("b", {}, "Mentions by window"), " ", words), place,
    h("details", {}, h("summary", {}, "The same in figures"),
      h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, head)), body))));
  let plot = null;
  let data = null;
  let length = DAY;

  function make() {
    const { axis, first } = chartInk(element);
    plot?.destroy();
    plot = new uPlot({
      width: Math.max(200, place.clientWidth), height: HEIGHT, legend: { show: false }, cursor: { show: false },
      padding: [8, 30, 0, 0],
      scales: { x: { time: false, range: (_, from, to) => [from, to] }, y: { range: (_, __, most) => [0, most > 0 ? most * 1.15 : 1] } },
      axes: [
        { ...axis, space: 90, size: 28, incrs: STEPS.map((each) => each * length), values: (_, ticks) => ticks.map((each) => asBegin(each, length)) },
        { ...axis, size: 56, space: 28, values: (_, ticks) => ticks.map((each) => (Number.isInteger(each) ? asNumber(each) : "")) },
      ],
      series: [{}, { stroke: first, fill: first, width: 0, points: { show: false }, paths: uPlot.paths.bars({ size: [0.75, 48], align: 0 }) }],
    }, data, place);
  }

  const sized = new ResizeObserver(() => plot && plot.setSize({ width: Math.max(200, place.clientWidth), height: HEIGHT }));
  sized.observe(place);
  return {
    element,
    draw(windows, seconds) {
      const isOther = length !== seconds;
      length = seconds;
      data = bars(windows, seconds);
      words.textContent = `${plural(windows.length, "window")} of ${seconds % DAY === 0 ? plural(seconds / DAY, "day") : plural(seconds / 3600, "hour")} with mentions`;
      body.replaceChildren(...[...windows].reverse().map(([start, mentions, documents]) =>
        h("tr", {}, h("td", {}, new Date(start).toLocaleString()), h("td", { class: "number" }, asCount(mentions)), h("td", { class: "number" }, asCount(documents)))));
      if (plot === null || isOther) make();
      else plot.setData(data);
    },
    restyle() { if (plot) make(); },
    end() { sized.disconnect(); plot?.destroy(); },
  };
}

/** When a window begins; windows of a day begin at midnight UTC. */
function asBegin(at, length) {
  const day = { month: "short", day: "numeric" };
  if (length % DAY === 0) return new Date(at * 1000).toLocaleDateString([], { ...day, timeZone: "UTC" });
  return new Date(at * 1000).toLocaleString([], { ...day, hour: "2-digit", hourCycle: "h23" });
}

/** The windows that are not there have no mentions. One empty window on both sides gives the bars their room. */
function bars(windows, seconds) {
  const counts = new Map(windows.map(([start, mentions]) => [start / 1000, mentions]));
  const ends = [...counts.keys()];
  const last = Math.max(...ends) + seconds;
  const first = Math.max(Math.min(...ends) - seconds, last - MOST_BARS * seconds);
  const at = [];
  for (let start = first; start <= last; start += seconds) at.push(start);
  return [at, at.map((start) => counts.get(start) ?? 0)];
}
