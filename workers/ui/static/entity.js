// All that is known of an entity over all documents; and merging and splitting it.

import { asCount, asTime, h, plural } from "./dom.js";
import { documentArticle, documentList, keepReachable } from "./documents.js";
import { openMerge, openSplit } from "./entity_dialogs.js";
import { ask } from "./server.js";
import { colourOf } from "./types.js";
import { windowChart } from "./window_chart.js";

const REFRESH = 5000;
const WAITING = 700;
const LONG = 20_000; // a worker that runs takes a second
const STATES = { done: "carried out", waiting: "waiting for el4ner worker entities to carry it out", over: "a later one counts" };
let decided = null; // { id, at, words, link? }: what was just decided, to be told where the entity of the id `at` is shown

export function entityView({ session }, asked) {
  const teacher = session.role === "teacher";
  let timer = 0;
  let left = false;
  let latest = "";
  let told = "";
  let waitingSince = 0; // 0: nothing is waited for
  let isSettled = false; // what was decided here waits no more
  const problem = h("p", { class: "problem", role: "alert" });
  const status = h("p", { class: "entity-status", role: "status" });
  const heading = h("h1", { id: "entity-title" }, "Entity");
  const merge = h("button", { type: "button", hidden: true }, "Merge with …");
  const facts = h("div", { class: "card" });
  const names = h("div", { class: "card" });
  const chart = windowChart();
  const decisions = h("div", { class: "card decisions" });
  const content = h("div", { hidden: true }, h("div", { class: "columns" }, facts, names), h("div", { class: "columns" }, chart.element, decisions));
  const documents = h("div", { class: "mention-documents" });

  async function refresh() {
    clearTimeout(timer);
    let isWaiting = decided !== null;
    try {
      const path = `/api/entities/${encodeURIComponent(asked)}`;
      const entity = await ask(decided === null ? path : `${path}?${new URLSearchParams({ decision: decided.id })}`);
      if (left) return;
      problem.textContent = entity.problem ? `The entities cannot be read: ${entity.problem}` : "";
      isWaiting = tell(entity);
      const text = JSON.stringify(entity);
      if (text !== latest) show(entity);
      latest = text;
    } catch (error) {
      if (left) return;
      problem.textContent = error.message;
      if (error.code === "no-entity") {
        // It is gone, or is not known yet: what was shown of it holds no more.
        content.hidden = true;
        merge.hidden = true;
        latest = "";
      }
    }
    waitingSince = isWaiting ? waitingSince || Date.now() : 0;
    timer = setTimeout(refresh, isWaiting && !isLong() ? WAITING : REFRESH);
  }

  const isLong = () => waitingSince > 0 && Date.now() - waitingSince > LONG;

  /** Say whether what was decided is so; whether it is waited for. Only what changes is written, since a screen reader
   * says it each time. */
  function tell(entity) {
    const own = decided !== null && [asked, entity.id].includes(decided.at) ? decided : null;
    const state = own ? entity.decision_state ?? "waiting" : entity.is_waiting ? "waiting" : null;
    isSettled = own !== null && state !== "waiting";
    const words = state === null ? "" : `${own?.words ?? "Something was decided"}: ${STATES[state]}.${state === "waiting" && isLong() ? " It has waited for long: does el4ner worker entities run?" : ""}`;
    if (words !== told) {
      told = words;
      status.className = `entity-status ${state === "done" ? "is-done" : "is-waiting"}`;
      status.replaceChildren(words, ...(own?.link && state === "done" ? [" ", h("a", { href: own.link }, "Look at it")] : []));
    }
    return state === "waiting";
  }

  function show(entity) {
    content.hidden = false;
    document.title = `${entity.name} · el4ner`;
    heading.replaceChildren(h("bdi", { class: "entity-name" }, entity.name), " ", h("span", { class: `vote ${colourOf(entity.type)}` }, entity.type));
    merge.hidden = !teacher;
    merge.onclick = () => openMerge(entity, merged);
    const key = document.activeElement?.dataset?.key;
    facts.replaceChildren(h("h2", {}, "What is known"),
      entity.asked === null ? "" : h("p", {}, h("bdi", {}, entity.asked), " is part of this entity."),
      h("dl", { class: "facts" }, [
        ["mentions", asCount(entity.mentions)], ["first seen", asTime(entity.first_seen)], ["last seen", asTime(entity.last_seen)],
        ["spellings", [entity.spellings.map((each, index) => [index ? "; " : "", h("bdi", {}, each)]), entity.more_spellings ? `; ${asCount(entity.more_spellings)} more` : ""]],
        ["id", h("span", { class: "mono" }, entity.id)],
      ].map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])));
    names.replaceChildren(h("h2", {}, "Names joined in it"), nameTable(entity));
    decisions.replaceChildren(h("h2", {}, "Decisions about it"), decisionTable(entity));
    chart.draw(entity.windows, entity.window_seconds);
    if (key) content.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus();
  }

  function nameTable(entity) {
    if (entity.names.length === 0) return h("p", { class: "quiet" }, "None but its own.");
    const rows = entity.names.map((name) => h("tr", {},
      h("td", {}, h("bdi", { class: "entity-name" }, name.name)),
      h("td", { class: "quiet" }, name.why === "decision" ? "somebody said so" : "its short form"),
      teacher ? h("td", { class: "end" }, h("button", { type: "button", "data-key": name.id, "aria-label": `split off ${name.name}`, click: () => openSplit(entity, name, (answer) => split(entity, name, answer)) }, "Split off …")) : null));
    const head = ["name", "why", ...(teacher ? ["decide"] : [])].map((each) => h("th", { scope: "col" }, each));
    return h("div", {}, h("table", {}, h("thead", { class: "visually-hidden" }, h("tr", {}, head)), h("tbody", {}, rows)),
      entity.more_names ? h("p", { class: "quiet" }, `${plural(entity.more_names, "name")} more.`) : null);
  }

  function decisionTable(entity) {
    if (entity.decisions.length === 0) return h("p", { class: "quiet" }, "Nobody has decided anything.");
    const rows = entity.decisions.map((each) => h("li", {},
      h("div", {}, h("bdi", { class: "entity-name" }, each.name), each.action === "merge" ? [" is part of ", h("bdi", { class: "entity-name" }, each.into)] : " is an entity of its own"),
      h("div", { class: "quiet" }, asTime(each.at), ", ", each.by ? h("bdi", {}, each.by) : "nobody says who", ": ", h("span", { class: `decision-${each.state}` }, STATES[each.state]))));
    return h("div", {}, h("ul", { class: "plain-list" }, rows), entity.more_decisions ? h("p", { class: "quiet" }, `${asCount(entity.more_decisions)} before them.`) : null);
  }

  function merged(kept, other, answer) {
    decided = { id: answer.decision, at: kept.id, words: `${other.name} is part of ${kept.name}` };
    isSettled = false;
    if (kept.id === asked) refresh();
    else location.hash = `#entities/${kept.id}`;
  }

  function split(entity, name, answer) {
    isSettled = false;
    decided = { id: answer.decision, at: entity.id, words: `${name.name} is an entity of its own`, link: `#entities/${name.id}` };
    if (name.id === asked) location.hash = `#entities/${entity.id}`; // it is another one now
    else refresh();
  }

  async function findDocuments() {
    documents.replaceChildren(h("p", { class: "quiet" }, "Looking for the documents …"));
    try {
      const answer = await ask(`/api/entities/${encodeURIComponent(asked)}/documents`);
      if (left) return;
      const list = documentList("documents that mention it");
      list.append(...answer.documents.map((each) => documentArticle(each, { teacher, highlight: (_, number) => each.wanted.includes(number) })));
      keepReachable(list);
      documents.replaceChildren(h("div", { class: "row" }, h("h2", {}, "Latest documents that mention it"), h("button", { type: "button", class: "plain", click: findDocuments }, "Look again")),
        answer.documents.length ? list : h("p", { class: "quiet" }, "None of the latest that came since the page started."));
    } catch (error) {
      if (!left) documents.replaceChildren(error.code === "no-entity" ? "" : h("p", { class: "problem", role: "alert" }, error.message));
    }
  }

  refresh();
  findDocuments();
  const redraw = () => chart.restyle();
  addEventListener("theme", redraw);
  const element = h("section", { class: "entity-page", "aria-labelledby": "entity-title" },
    h("p", {}, h("a", { href: "#entities" }, "All entities")),
    h("div", { class: "title" }, heading, merge), status, problem, content, documents);
  return { element, leave: () => { left = true; clearTimeout(timer); if (isSettled) decided = null; removeEventListener("theme", redraw); chart.end(); } };
}
