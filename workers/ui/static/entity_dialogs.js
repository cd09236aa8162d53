// Merging two entities, and splitting a name off one: each is asked about, and said in full, before it is decided.

import { asCount, h, plural, settled } from "./dom.js";
import { ask } from "./server.js";

const named = (name) => h("bdi", { class: "entity-name" }, name);
const withMentions = (entity) => [named(entity.name), ` (${plural(entity.mentions, "mention")})`];

/** A dialog that says what goes wrong in it. */
function openDialog(title) {
  const problem = h("p", { class: "problem", role: "alert" });
  const content = h("div", {});
  const dialog = h("dialog", { class: "dialog", "aria-labelledby": "entity-dialog-title" },
    h("h2", { id: "entity-dialog-title" }, title), problem, content);
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return {
    show: (...children) => content.replaceChildren(...children.flat(Infinity).filter(Boolean)),
    tell: (words) => (problem.textContent = words),
    close: () => dialog.close(),
    cancel: (words = "Cancel", click = () => dialog.close()) => h("button", { type: "button", click }, words),
    /** A button that decides; `done` is called with the answer when it is. */
    decide(words, path, body, done) {
      const button = h("button", { type: "button", class: "main", click: async () => {
        button.disabled = true;
        problem.textContent = "";
        try {
          const answer = await ask(path, body);
          dialog.close();
          done(answer);
        } catch (error) {
          problem.textContent = error.message;
          button.disabled = false;
        }
      } }, words);
      return button;
    },
  };
}

/** Choose an entity of the same type, and which of the two stays. `done` is told which did, which went into it, and the answer. */
export function openMerge(entity, done) {
  const dialog = openDialog(["Merge with ", named(entity.name)]);
  let chosen = null;
  let asked = 0;
  const like = h("input", { type: "search", id: "merge-like", maxlength: 200, dir: "auto", value: longestWord(entity.name), input: settled(find) });
  const candidates = h("fieldset", { class: "candidates" });
  const note = h("p", { class: "quiet", role: "status" });
  const next = h("button", { type: "button", class: "main", disabled: true, click: () => confirm(entity, chosen) }, "Go on …");

  async function find() {
    const number = (asked += 1);
    dialog.tell("");
    try {
      const answer = await ask(`/api/entities?${new URLSearchParams({ like: like.value, type: entity.type, but: entity.id })}`);
      if (number === asked) show(answer);
    } catch (error) {
      dialog.tell(error.message);
    }
  }

  function show({ entities, matched }) {
    const found = chosen === null ? null : entities.find((each) => each.id === chosen.id);
    choose(found ?? null);
    candidates.replaceChildren(h("legend", {}, "Which one is the same?"), ...entities.map(candidate));
    note.textContent = matched === 0 ? "No other entity of this type has a spelling with that." : entities.length < matched ? `${asCount(entities.length)} of ${asCount(matched)}: search for more of the name.` : "";
  }

  function candidate(each) {
    const spellings = each.spellings.length ? h("span", { class: "quiet" }, " also ", each.spellings.map((one, index) => [index ? ", " : "", h("bdi", {}, one)]), each.more_spellings ? ` and ${asCount(each.more_spellings)} more` : "") : null;
    return h("label", { class: "candidate" },
      h("input", { type: "radio", name: "candidate", value: each.id, checked: each.id === chosen?.id, change: () => choose(each) }),
      h("span", {}, withMentions(each), spellings));
  }

  function choose(each) {
    chosen = each;
    next.disabled = each === null;
  }

  function start() {
    dialog.show(
      h("p", { class: "quiet" }, `Entities of the type ${entity.type} with a spelling that has these letters. Whether they are the same nobody but you knows.`),
      h("div", { class: "named" }, h("label", { for: "merge-like" }, "Name"), like), candidates, note,
      h("div", { class: "buttons" }, dialog.cancel(), next));
    like.focus();
    find();
  }

  function confirm(kept, other) {
    dialog.tell("");
    const swap = h("button", { type: "button", click: () => confirm(other, kept) }, "The other way round");
    const merge = dialog.decide("Merge them", "/api/entities/merge", { kept: kept.id, other: other.id }, (answer) => done(kept, other, answer));
    dialog.show(
      h("p", {}, withMentions(other), " becomes part of ", withMentions(kept), ". What was counted for it counts there, and what comes too."),
      h("p", { class: "quiet" }, "Splitting the name off takes it back."),
      h("div", { class: "buttons" }, dialog.cancel("Back", start), swap, merge));
    merge.focus();
  }

  start();
}

/** Ask whether a name that is joined in an entity is to be one of its own. */
export function openSplit(entity, name, done) {
  const dialog = openDialog(["Split off ", named(name.name), "?"]);
  const split = dialog.decide("Split it off", "/api/entities/split", { entity: entity.id, name: name.id }, done);
  dialog.show(
    h("p", {}, named(name.name), ` is an entity of its own then, and no part of `, named(entity.name), ". What was counted for it counts there."),
    h("p", { class: "quiet" }, "Merging the two takes it back."),
    h("div", { class: "buttons" }, dialog.cancel(), split));
  split.focus();
}

/** Of a name, what finds names like it: of persons, mostly the family's. Of a very long word its beginning. */
function longestWord(name) {
  const longest = name.split(/\s+/u).reduce((best, word) => (word.length >= best.length ? word : best), "");
  return [...longest].slice(0, 50).join("");
}
