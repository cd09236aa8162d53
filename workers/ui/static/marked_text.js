// A document's text with its entities marked, and what is known of each: on hover, and by keyboard.

import { asPercent, asTime, h, plural } from "./dom.js";
import { entityHref } from "./entity_links.js";
import { colourOf } from "./types.js";

/** The text of a shown document (see shown_documents.py). Entities inside entities are nested. */
export function markedText(shown, { highlight = () => false } = {}) {
  const text = h("p", { class: "text", dir: "auto" });
  const open = []; // { number, element }
  let position = 0;
  for (const [part, inside, name] of shown.pieces) {
    while (open.length && !inside.includes(open.at(-1).number)) closeEntity(open, shown);
    for (const number of inside) {
      if (open.some((each) => each.number === number)) continue;
      const element = entityElement(shown, number, highlight);
      (open.at(-1)?.element ?? text).append(element);
      open.push({ number, element });
    }
    const parent = open.at(-1)?.element ?? text;
    parent.append(
      name === null
        ? h("span", { "data-start": position }, part)
        : h("span", { class: "control", "data-start": position, title: `the character ${name}` }, name),
    );
    position += name === null ? [...part].length : 1;
  }
  while (open.length) closeEntity(open, shown);
  if (!shown.readable) text.append(h("em", {}, "The text could not be read."));
  if (shown.cut_chars) text.append(h("span", { class: "quiet" }, ` … and ${plural(shown.cut_chars, "character")} more`));
  return text;
}

function entityElement(shown, number, highlight) {
  const entity = shown.entities[number];
  const leads = entityHref(entity) !== null;
  const element = h("mark", {
    class: `entity ${colourOf(entity.type)}${highlight(entity, number) ? " wanted" : ""}${leads ? " leads" : ""}`,
    tabindex: "-1",
    role: "group",
    "aria-roledescription": "entity",
    "aria-label": `${entity.text}: ${entity.type}, ${asPercent(entity.confidence)}`,
    "aria-keyshortcuts": leads ? "E" : null,
    "data-entity": number,
  });
  element.entity = entity;
  element.shown = shown;
  return element;
}

function closeEntity(open, shown) {
  const { number, element } = open.pop();
  const entity = shown.entities[number];
  element.append(
    h("span", { class: "entity-type", "aria-hidden": "true" }, entity.type, h("b", {}, asPercent(entity.confidence))),
  );
}

/** What a document's head says of it: id, pool, time, and what is wrong with it. */
export function documentHead(shown) {
  const head = h(
    "div",
    { class: "document-head" },
    h("span", { class: "id", dir: "auto" }, shown.id),
    shown.revision ? h("span", {}, `revision ${shown.revision}`) : null,
    shown.pool === null ? null : h("span", { class: "tag" }, shown.pool),
    shown.timestamp === null ? null : h("time", {}, asTime(shown.timestamp)),
  );
  if (shown.status !== "complete") {
    const why = shown.error
      ? `${shown.error.stage ? `${shown.error.stage}: ` : ""}${shown.error.code}: ${shown.error.message}`
      : shown.missing.length
        ? `no answer from ${shown.missing.join(", ")}`
        : "";
    head.append(h("span", { class: `state ${shown.status}` }, shown.status), h("span", { class: "why", dir: "auto" }, why));
  }
  return head;
}

/** What is known of an entity: who proposed it, who voted for what, the verdict. */
export function entityFacts(entity, shown) {
  const rows = [["confidence", asPercent(entity.confidence)]];
  rows.push(["proposed by", entity.proposed_by.join(", ") || "nobody says"]);
  if (entity.boundary !== null) rows.push(["boundaries", `${asPercent(entity.boundary)} likely an entity`]);
  for (const [voter, type] of entity.votes) {
    rows.push([`${voter} says`, h("span", { class: `vote ${colourOf(type)}` }, type)]);
  }
  if (entity.verdict === null || entity.verdict.verifier === null) rows.push(["verdict", "nobody was asked"]);
  else {
    const { holds, probability, verifier } = entity.verdict;
    rows.push(["verdict", `${holds ? "holds" : "does not hold"}, ${asPercent(probability)}, by ${verifier}`]);
  }
  if (shown.made_by) {
    const { members, missing_members: missing, mode, pool, pool_fingerprint: fingerprint } = shown.made_by;
    rows.push(["members", `${members.join(", ")} (${mode})`]);
    if (missing.length) rows.push(["without", missing.join(", ")]);
    rows.push(["pool", `${pool}, ${fingerprint.slice(0, 12)}`]);
  }
  return [
    h("p", { class: "facts-title" }, h("b", { dir: "auto" }, entity.text), " ",
      h("span", { class: `vote ${colourOf(entity.type)}` }, entity.type)),
    h("dl", {}, rows.map(([name, value]) => [h("dt", {}, name), h("dd", { dir: "auto" }, value)])),
  ];
}
