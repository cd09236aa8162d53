// Which names are mentioned most, and which more than before.

import { asCount, asNumber, asSeconds, asTime, h, plural, svg } from "./dom.js";
import { documentArticle, documentList, keepReachable } from "./documents.js";
import { entityHref } from "./entity_links.js";
import { ask } from "./server.js";
import { colourOf } from "./types.js";

const WINDOWS = { "5m": "5 minutes", "1h": "1 hour", "24h": "24 hours" };
const REFRESH = 5000;

export function trendsView({ session }) {
  const teacher = session.role === "teacher";
  let window = "5m";
  let type = "";
  let timer = 0;
  let left = false;
  const problem = h("p", { class: "problem", role: "alert" });
  const note = h("p", { class: "quiet" });
  const most = panel("Most mentioned");
  const rising = panel("Rising");
  const documents = h("div", { class: "mention-documents" });
  const typeChoice = h("select", { id: "trend-type", change: () => ((type = typeChoice.value), refresh()) }, h("option", { value: "" }, "all types"));
  const known = new Set();
  const buttons = Object.entries(WINDOWS).map(([name, title]) =>
    h("button", { type: "button", "aria-pressed": String(name === window), "data-window": name,
      click: () => { window = name; for (const each of buttons) each.setAttribute("aria-pressed", String(each.dataset.window === name)); refresh(); } }, title));

  async function refresh() {
    clearTimeout(timer);
    try {
      const report = await ask(`/api/trends?${new URLSearchParams({ window, type })}`);
      problem.textContent = "";
      show(report);
    } catch (error) {
      problem.textContent = error.message;
    }
    if (!left) timer = setTimeout(refresh, REFRESH);
  }

  function show(report) {
    for (const name of Object.keys(report.types)) {
      if (known.has(name)) continue;
      known.add(name);
      typeChoice.append(h("option", { value: name }, name));
    }
    const covered = report.covered_seconds < 60 ? "less than a minute" : asSeconds(report.covered_seconds);
    const error = report.error ? ` Counts may be too low by up to ${asCount(report.error)}.` : "";
    note.textContent = `${plural(report.mentions, "mention")} in ${covered}, counted since the page started.${error}`;
    rows(most.body, report.most, "Nothing was mentioned yet.");
    if (report.rising === null) rows(rising.body, [], "What rises is known when there is a time before to compare with.");
    else rows(rising.body, report.rising, "Nothing is mentioned more than before.", true);
  }

  function rows(body, trends, otherwise, compared = false) {
    const focused = document.activeElement?.closest?.("tr")?.dataset.key;
    const inside = body.contains(document.activeElement);
    body.replaceChildren(...trends.map((trend) => row(trend, compared)));
    if (trends.length === 0) body.append(h("tr", {}, h("td", { class: "empty", colspan: 4 }, otherwise)));
    if (inside) [...body.rows].find((each) => each.dataset.key === focused)?.querySelector("button")?.focus();
  }

  function row(trend, compared) {
    const before = compared ? h("span", { class: "quiet" }, ` from ${asNumber(trend.before)}`) : null;
    return h("tr", { "data-key": `${trend.type} ${trend.name}` },
      h("td", {}, h("button", { type: "button", class: "link", dir: "auto", click: () => open(trend) }, trend.name)),
      h("td", {}, h("span", { class: `vote ${colourOf(trend.type)}` }, trend.type)),
      h("td", { class: "spark-cell" }, sparkline(trend.series)),
      h("td", { class: "number" }, asCount(trend.count), before));
  }

  async function open(trend) {
    documents.replaceChildren(h("p", { class: "quiet" }, "Looking for the documents …"));
    try {
      const answer = await ask(`/api/mentions?${new URLSearchParams({ type: trend.type, name: trend.name })}`);
      const list = documentList(`documents that mention ${trend.name}`);
      const wanted = (entity) => entity.type === trend.type && entity.text.split(/\s+/u).join(" ").trim() === trend.name;
      list.append(...answer.documents.map((each) => documentArticle(each, { highlight: wanted, teacher })));
      keepReachable(list);
      const heading = h("h2", { tabindex: "-1" }, `Latest documents that mention `, h("bdi", {}, trend.name));
      documents.replaceChildren(heading, entityLinks(answer.documents, wanted), answer.documents.length ? list : h("p", { class: "empty" }, "They are not there any more."));
      heading.focus();
      heading.scrollIntoView({ block: "nearest" });
    } catch (error) {
      documents.replaceChildren(h("p", { class: "problem", role: "alert" }, error.message));
    }
  }

  refresh();
  const element = h("section", { "aria-labelledby": "trends-title" },
    h("div", { class: "title" }, h("h1", { id: "trends-title" }, "Trends"),
      h("div", { class: "row" }, h("div", { class: "segments", role: "group", "aria-label": "Time" }, buttons),
        h("label", { for: "trend-type", class: "visually-hidden" }, "Type"), typeChoice)),
    note, problem, h("div", { class: "columns" }, most.element, rising.element), documents);
  return { element, leave: () => { left = true; clearTimeout(timer); } };
}

/** To the entities over all documents that these mean by the name: one, or several that are spelt alike. */
function entityLinks(documents, wanted) {
  const links = new Set(documents.flatMap((each) => each.entities.filter(wanted).map(entityHref)).filter(Boolean));
  const words = (number) => (links.size === 1 ? "The entity over all documents" : `Entity ${number + 1} of ${links.size} that are called so`);
  return h("p", { class: "row entity-links" }, [...links].map((href, number) => h("a", { href }, words(number))));
}

function panel(title) {
  const body = h("tbody");
  const head = h("thead", { class: "visually-hidden" }, h("tr", {}, ["name", "type", "course", "mentions"].map((each) => h("th", { scope: "col" }, each))));
  return { body, element: h("div", { class: "card" }, h("h2", {}, title), h("table", { class: "trends" }, head, body)) };
}

function sparkline(series) {
  const width = 96, height = 22, largest = Math.max(1, ...series);
  const step = width / series.length;
  const bars = series.map((count, index) => {
    const tall = count === 0 ? 0 : Math.max(1.5, (count / largest) * height);
    return svg("rect", { x: (index * step).toFixed(2), y: (height - tall).toFixed(2), width: (step - 1.5).toFixed(2), height: tall.toFixed(2), rx: 1 });
  });
  return svg("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `over time: ${series.join(", ")}` }, ...bars);
}
