// Entities over all documents: the list of them, and all that is known of one.

import { asCount, asTime, h, plural, settled } from "./dom.js";
import { entityView } from "./entity.js";
import { ask } from "./server.js";
import { colourOf } from "./types.js";

const REFRESH = 5000;
const ORDERS = { mentions: "most mentions", "last-seen": "seen last" };
const filter = { like: "", type: "", order: "mentions", start: 0 }; // kept while an entity is looked at

export function entitiesView(context) {
  if (!context.session.has_entities) return { element: howToSwitchOn() };
  const id = location.hash.slice(1).split("/")[1];
  return id ? entityView(context, decoded(id)) : listView();
}

/** What somebody wrote into the address bar may be anything. */
function decoded(id) {
  try {
    return decodeURIComponent(id);
  } catch {
    return id;
  }
}

function howToSwitchOn() {
  return h("section", { "aria-labelledby": "entities-title" },
    h("div", { class: "title" }, h("h1", { id: "entities-title" }, "Entities")),
    h("div", { class: "card" },
      h("p", {}, "Each entity once over all documents: that is not switched on here."),
      h("p", {}, "Set ", h("code", {}, "enabled = true"), " under ", h("code", {}, "[entities]"), ", make the topics by ", h("code", {}, "el4ner topics create"),
        ", and start ", h("code", {}, "el4ner worker entities"), "; then start the page again.")));
}

function listView() {
  let timer = 0;
  let left = false;
  let asked = 0; // of several answers the one to the latest question counts
  const problem = h("p", { class: "problem", role: "alert" });
  const note = h("p", { class: "quiet", role: "status" });
  const body = h("tbody");
  const place = h("span", { class: "quiet" });
  const like = h("input", { type: "search", id: "entity-like", maxlength: 200, dir: "auto", value: filter.like,
    input: settled(() => ((filter.like = like.value), anew())) });
  const types = h("select", { id: "entity-type", change: () => ((filter.type = types.value), anew()) });
  const orders = h("select", { id: "entity-order", change: () => ((filter.order = orders.value), anew()) },
    Object.entries(ORDERS).map(([value, title]) => h("option", { value, selected: value === filter.order }, title)));
  const back = h("button", { type: "button", click: () => go(-1) }, "Back");
  const next = h("button", { type: "button", click: () => go(1) }, "Next");
  let page = { most: 50, last_start: 0 };

  const anew = () => ((filter.start = 0), refresh());

  function go(pages) {
    filter.start = Math.min(Math.max(0, filter.start + pages * page.most), page.last_start);
    refresh();
  }

  async function refresh() {
    clearTimeout(timer);
    const number = (asked += 1);
    try {
      const answer = await ask(`/api/entities?${new URLSearchParams(filter)}`);
      if (left || number !== asked) return;
      problem.textContent = answer.problem ? `The entities cannot be read: ${answer.problem}` : "";
      show(answer);
    } catch (error) {
      problem.textContent = error.message;
    }
    if (!left) timer = setTimeout(refresh, REFRESH);
  }

  function show(answer) {
    page = answer;
    showTypes(answer.types);
    const words = [`${plural(answer.all, "entity", "entities")}.`];
    if (!answer.is_read && !answer.problem) words.push("They are still being read.");
    if (answer.has_forgotten) words.push("There are more than the page may hold (ui.keep_entities): those that changed least lately are not among them.");
    if (answer.unreadable) words.push(`${plural(answer.unreadable, "message")} could not be read.`);
    if (note.textContent !== words.join(" ")) note.textContent = words.join(" ");
    const focused = document.activeElement?.closest?.("tr")?.dataset.id;
    const inside = body.contains(document.activeElement);
    body.replaceChildren(...answer.entities.map(row));
    if (answer.entities.length === 0) body.append(h("tr", {}, h("td", { class: "empty", colspan: 4 }, answer.all ? "None is like that." : "No document had an entity yet.")));
    if (inside) [...body.rows].find((each) => each.dataset.id === focused)?.querySelector("a")?.focus();
    const last = filter.start + answer.entities.length;
    place.textContent = answer.matched ? `${asCount(filter.start + 1)} to ${asCount(last)} of ${asCount(answer.matched)}` : "";
    back.disabled = filter.start === 0;
    next.disabled = last >= answer.matched || filter.start >= answer.last_start;
  }

  function showTypes(names) {
    const known = [...types.options].slice(1).map((each) => each.value);
    const wanted = filter.type && !names.includes(filter.type) ? [...names, filter.type] : names;
    if (known.length === wanted.length && wanted.every((name) => known.includes(name)) && types.options.length) return;
    types.replaceChildren(h("option", { value: "" }, "all types"), ...[...wanted].sort().map((name) => h("option", { value: name, selected: name === filter.type }, name)));
  }

  function row(entity) {
    const also = entity.spellings.map((each, index) => [index ? ", " : "", h("bdi", {}, each)]);
    return h("tr", { "data-id": entity.id },
      h("td", {}, h("a", { class: "entity-link", href: `#entities/${entity.id}`, dir: "auto" }, entity.name),
        also.length ? h("div", { class: "quiet also" }, "also ", also, entity.more_spellings ? ` and ${asCount(entity.more_spellings)} more` : "") : null),
      h("td", {}, h("span", { class: `vote ${colourOf(entity.type)}` }, entity.type)),
      h("td", { class: "number" }, asCount(entity.mentions), h("span", { class: "unit" }, entity.mentions === 1 ? " mention" : " mentions")),
      h("td", { class: "when" }, asTime(entity.last_seen)));
  }

  refresh();
  const head = ["name", "type", "mentions", "seen last"].map((each, index) => h("th", { scope: "col", class: index === 2 ? "number" : null }, each));
  const element = h("section", { "aria-labelledby": "entities-title" },
    h("div", { class: "title" }, h("h1", { id: "entities-title" }, "Entities"),
      h("form", { class: "row", role: "search", submit: (event) => event.preventDefault() },
        h("span", { class: "named" }, h("label", { for: "entity-like" }, "Name"), like),
        h("span", { class: "named" }, h("label", { for: "entity-type" }, "Type"), types),
        h("span", { class: "named" }, h("label", { for: "entity-order" }, "Order"), orders))),
    note, problem,
    h("div", { class: "card table-card" }, h("table", { class: "entities" }, h("thead", {}, h("tr", {}, head)), body)),
    h("div", { class: "row paging" }, back, next, place));
  return { element, leave: () => { left = true; clearTimeout(timer); } };
}
