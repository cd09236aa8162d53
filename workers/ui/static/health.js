// How the stream is: rates, latencies, lag, failures; what cannot be asked is said.

import uPlot from "/static/vendor/uplot/uPlot.esm.js";
import { chartInk } from "./chart_ink.js";
import { asCount, asNumber, asPercent, asSeconds, h } from "./dom.js";
import { ask } from "./server.js";
import { colourOf } from "./types.js";

const REFRESH = 5000;
const COURSES = [
  { title: "Documents/s", key: ["documents"], unit: asNumber },
  { title: "Latency, end to end", key: ["p50", "p95"], names: ["half", "95 %"], unit: asSeconds },
  { title: "Models' tokens/s", key: ["tokens"], unit: asNumber },
];

/** What did not have to be worked out again. */
const KNOWN = [
  { key: "repeats", title: "Sentences that repeat: no model was asked" },
  { key: "shared_answers", title: "Of the new ones: another worker's answers" },
  { key: "retrieval_cache", title: "Retrieval cache" },
  { key: "cached_tokens", title: "Prompt tokens from the key-value cache" },
];

export function healthView() {
  let timer = 0;
  let left = false;
  const problem = h("p", { class: "problem", role: "alert" });
  const workers = h("div", { class: "worker-list" });
  const tiles = h("div", { class: "tiles" });
  const charts = COURSES.map(chart);
  const stages = h("tbody");
  const lags = h("tbody");
  const lagProblem = h("p", { class: "problem" });
  const failures = h("tbody");
  const known = h("tbody");
  const drift = h("tbody");

  async function refresh() {
    try {
      show(await ask("/api/health"));
      problem.textContent = "";
    } catch (error) {
      problem.textContent = error.message;
    }
    if (!left) timer = setTimeout(refresh, REFRESH);
  }

  function show(health) {
    workers.replaceChildren(...health.workers.map(worker));
    if (health.workers.length === 0) {
      workers.append(h("p", { class: "quiet" }, "No worker is asked: name their addresses in ", h("code", {}, "ui.metrics_urls"), ", and give workers a ", h("code", {}, "worker.web_port"), "."));
    }
    const { rates, gauges, shares, end_to_end: latency } = health;
    tiles.replaceChildren(
      tile("Documents", perSecond(rates.documents)),
      tile("Latency", latency.p50 === null ? "–" : asSeconds(latency.p50), latency.p95 === null ? "" : `95 %: ${asSeconds(latency.p95)}`),
      tile("Lag", health.lag_problem ? "–" : asCount(sum(health.lags, "lag")), "messages"),
      tile("Open documents", count(gauges.open_documents ?? gauges.in_flight), gauges.oldest_open ? `oldest ${asSeconds(gauges.oldest_open)}` : ""),
      tile("Tokens", perSecond(rates.tokens)),
      tile("Repeats", share(shares.repeats), "answered from memory"),
      tile("Dead letters", count(sum(health.failures, "count")), "in 15 min"),
    );
    for (const each of charts) each.draw(health.course);
    fill(stages, health.stages, (each) => [each.stage, perSecond(each.answered), seconds(each.latency.p50), seconds(each.latency.p95), count(each.in_flight), each.batch === null ? "–" : asNumber(each.batch), each.stuck ? asSeconds(each.stuck) : "no"], "No stage has said anything yet.");
    lagProblem.textContent = health.lag_problem ?? "";
    fill(lags, health.lags, (each) => [each.stage, asCount(each.lag), each.members ? asCount(each.members) : h("span", { class: "state partial" }, "none"), Object.entries(each.topics).map(([topic, lag]) => `${topic} ${asCount(lag)}`).join(", ")], "No stage has committed anything yet.");
    fill(failures, health.failures, (each) => [each.stage, each.code, asCount(each.count)], "None.");
    fill(known, KNOWN.filter(({ key }) => shares[key] !== null), ({ key, title }) => [title, share(shares[key])], "Nothing was looked up in the last minute.");
    fill(drift, [...health.drift, ...unmeasured(health)], ({ pool, bits, types, why = "" }) => [pool, bits === null ? "–" : `${bits.toFixed(3)} bits`, why || types.map(drifted)], "No worker says which pools it has.");
  }

  refresh();
  const redraw = () => refreshCharts(charts);
  addEventListener("theme", redraw);
  const element = h("section", { "aria-labelledby": "health-title" },
    h("div", { class: "title" }, h("h1", { id: "health-title" }, "Health")), problem,
    tiles, h("div", { class: "charts" }, charts.map((each) => each.element)),
    h("div", { class: "columns" },
      table("Lag, as the broker knows it", ["stage", "messages", "members", "topics"], lags, lagProblem),
      table("Failures of the last 15 minutes", ["stage", "code", "dead letters"], failures),
      table("Stages, over a minute", ["stage", "answers", "half in", "95 % in", "in flight", "batch", "stuck"], stages),
      table("Known already, over a minute", ["what", "share"], known),
      table("Drift of types, against the pool", ["pool", "divergence", "types that differ most"], drift)),
    h("div", { class: "card" }, h("h2", {}, "Workers"), workers));
  return { element, leave: () => { left = true; clearTimeout(timer); removeEventListener("theme", redraw); for (const each of charts) each.end(); } };
}

const refreshCharts = (charts) => charts.forEach((each) => each.restyle());
const perSecond = (value) => (value === null ? "–" : `${asNumber(value)}/s`);
const seconds = (value) => (value === null ? "–" : asSeconds(value));
const count = (value) => (value === null || value === undefined ? "–" : asCount(value));
const share = (value) => (value === null || value === undefined ? "–" : asPercent(value));
const sum = (rows, key) => rows.reduce((total, each) => total + each[key], 0);

/** Pools of which too little was seen. */
const unmeasured = ({ drift, pools }) =>
  Object.keys(pools).filter((pool) => drift.every((each) => each.pool !== pool))
    .map((pool) => ({ pool, bits: null, types: [], why: pools[pool] === 0 ? "not read yet" : "too few entities seen yet" }));

const drifted = ({ type, stream, pool }) =>
  h("div", {}, h("span", { class: `vote ${colourOf(type)}` }, type), ` ${asPercent(stream)}, pool ${asPercent(pool)}`);

const tile = (title, value, more = "") =>
  h("div", { class: "card tile" }, h("span", { class: "quiet" }, title), h("b", {}, value), h("span", { class: "quiet" }, more || "\u00a0"));

function worker({ url, error, ready }) {
  const state = error ? h("span", { class: "state failed" }, error) : ready === false ? h("span", { class: "state partial" }, "not ready") : h("span", { class: "good" }, "answers");
  return h("p", {}, h("code", {}, url), " ", state);
}

function table(title, head, body, ...more) {
  return h("div", { class: "card" }, h("h2", {}, title), more,
    h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, head.map((each) => h("th", { scope: "col" }, each)))), body)));
}

function fill(body, rows, cells, otherwise) {
  body.replaceChildren(...rows.map((row) => h("tr", {}, cells(row).map((each) => h("td", {}, each)))));
  if (rows.length === 0) body.append(h("tr", {}, h("td", { class: "quiet", colspan: 9 }, otherwise)));
}

/** A line for each key over the last quarter of an hour, and its latest values in words. */
function chart({ title, key, names = [], unit }) {
  const place = h("div", { class: "chart", "aria-hidden": "true" });
  const words = h("span", { class: "quiet" });
  const element = h("figure", { class: "card" }, h("figcaption", {}, h("b", {}, title), " ", words), place);
  let plot = null;
  let data = null;

  function make() {
    const { axis, first, second } = chartInk(element);
    plot?.destroy();
    plot = new uPlot({
      width: Math.max(200, place.clientWidth), height: 150, legend: { show: false }, cursor: { show: false },
      padding: [8, 18, 0, 0],
      scales: { y: { range: (_, __, most) => [0, most > 0 ? most * 1.15 : 1] } },
      axes: [
        { ...axis, space: 70, size: 28, values: (_, ticks) => ticks.map((each) => new Date(each * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" })) },
        { ...axis, size: 56, space: 28, values: (_, ticks) => ticks.map((each) => unit(each)) },
      ],
      series: [{}, ...key.map((_, index) => ({ stroke: index ? second : first, width: 2, fill: key.length === 1 ? `color-mix(in srgb, ${first} 14%, transparent)` : undefined, points: { show: false }, spanGaps: true }))],
    }, data, place);
  }

  const sized = new ResizeObserver(() => plot && plot.setSize({ width: Math.max(200, place.clientWidth), height: 150 }));
  sized.observe(place);
  return {
    element,
    draw(course) {
      data = [course.at, ...key.map((each) => course[each])];
      words.textContent = key.map((each, index) => {
        const latest = course[each].at(-1) ?? null;
        return `${names[index] ? `${names[index]}: ` : "now "}${latest === null ? "–" : unit(latest)}`;
      }).join("; ");
      if (plot === null) make();
      else plot.setData(data);
    },
    restyle() { if (plot) make(); },
    end() { sized.disconnect(); plot?.destroy(); },
  };
}
