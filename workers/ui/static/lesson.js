// Teaching the pool from a document: change the type of an entity, drop it, add one, or say that all is right.

import { asCount, h, plural } from "./dom.js";
import { entityHref } from "./entity_links.js";
import { ask } from "./server.js";
import { colourOf } from "./types.js";

/**
 * A dialog with the sentences of a document. `chosen` is the offset of an entity to begin with. With `only`, the offset
 * of a sentence, it has this one alone, and closes when it is taught; `taught` is called then.
 */
export async function openLesson(shown, options = {}) {
  const { dialog, show, load } = lessonDialog(shown, options);
  show();
  const editors = await load();
  const chosen = options.chosen ?? null;
  const begin = chosen === null ? null : editors.find(({ sentence, length }) => chosen >= sentence.start && chosen < sentence.start + length);
  begin?.choose(chosen - begin.sentence.start);
  if (!begin && editors.length === 1 && dialog.open) editors[0].focus();
}

/** Teach the sentence that begins at `shown.start` as it is. Where the pool disagrees, or it cannot be, a dialog says so. */
export async function confirmSentence(shown, taught) {
  const { dialog, show, load } = lessonDialog(shown, { only: shown.start, taught });
  const [only] = await load();
  if (only && (await only.send(false))) {
    dialog.remove();
    return;
  }
  show();
  only?.decide();
}

function lessonDialog(shown, { only = null, taught = () => {} }) {
  const dialog = h("dialog", { class: "dialog lesson", "aria-labelledby": "lesson-title" });
  const problem = h("p", { class: "problem", role: "alert" });
  const note = h("p", { class: "lesson-note", role: "status" });
  const content = h("div", {}, h("p", { class: "quiet" }, "Looking for its sentences …"));
  let editors = [];
  const all = h("button", { type: "button", hidden: true, click: teachAll });
  const end = () => {
    if (only === null) return;
    dialog.close();
    taught();
  };
  dialog.append(
    h("h2", { id: "lesson-title" }, "Correct ", h("bdi", {}, shown.id)),
    h("p", { class: "quiet" }, "Choose an entity to change it, or select text to add one. A sentence that is taught counts for every worker within seconds."),
    problem, note, content,
    h("div", { class: "buttons" }, h("button", { type: "button", click: () => dialog.close() }, "Close"), all),
  );
  dialog.addEventListener("close", () => dialog.remove());
  const show = () => {
    document.body.append(dialog);
    dialog.showModal();
  };
  async function load() {
    try {
      const lesson = await ask(`/api/lesson?${new URLSearchParams({ place: shown.place })}`);
      const sentences = lesson.sentences.filter((each) => only === null || each.start === only);
      editors = sentences.map((sentence) => editor(sentence, lesson, shown, { problem, note, end }));
      content.replaceChildren(...editors.map((each) => each.element));
      all.hidden = editors.length < 2;
      all.textContent = `Teach all ${asCount(editors.length)} sentences as they are marked`;
      if (editors.length === 0) note.textContent = "There is no sentence that could be taught.";
      return editors;
    } catch (error) {
      content.replaceChildren();
      problem.textContent = error.message;
      return [];
    }
  }

  /** The document is right: all of its sentences, but those that the pool disagrees with, which are asked about. */
  async function teachAll() {
    all.disabled = true;
    let asked = null;
    for (const each of editors.filter((one) => !one.isTaught())) {
      if (!dialog.open) return;
      if (await each.send(false)) continue;
      asked ??= each;
      if (problem.textContent) break; // what stops one stops all
    }
    const known = editors.filter((each) => each.isTaught()).length;
    note.textContent = `Taught ${asCount(known)} of ${plural(editors.length, "sentence")}.`;
    if (asked === null) {
      dialog.querySelector(".buttons button").focus();
      return;
    }
    all.disabled = false;
    if (!problem.textContent) note.textContent += " The pool disagrees with the rest.";
    asked.decide();
  }

  return { dialog, show, load };
}

function editor(sentence, lesson, shown, { problem, note, end }) {
  // One unit for each code point: what is shown, and whether it is a character that has to be named.
  const units = sentence.pieces.flatMap(([text, , name]) => (name === null ? [...text].map((char) => [char, false]) : [[name, true]]));
  const before = JSON.stringify(sentence.spans);
  let spans = sentence.spans.map((each) => ({ ...each }));
  let chosen = null; // { start, end, type or null }
  const newTypes = {};
  const text = h("p", { class: "text", dir: "auto" });
  const tools = h("div", { class: "row lesson-tools" });
  const teach = h("button", { type: "button", class: "main", click: () => send(false) });
  const doubts = h("div", { class: "doubts", role: "alert" });
  const element = h("div", { class: "lesson-sentence" }, text, tools, doubts, h("div", { class: "row lesson-end" }, finder(), teach));

  const surface = (start, end) => units.slice(start, end).map(([shownAs]) => shownAs).join("");

  function draw({ focus = false, keepTools = false } = {}) {
    text.replaceChildren();
    let at = 0;
    for (const span of [...spans].sort((a, b) => a.start - b.start)) {
      text.append(...run(at, span.start));
      const isChosen = chosen !== null && chosen.start === span.start && chosen.end === span.end;
      const mark = h("mark", { class: `entity ${colourOf(span.type)}${isChosen ? " wanted" : ""}`, role: "button", tabindex: "0",
        "aria-label": `${surface(span.start, span.end)}: ${span.type}`, "aria-pressed": String(isChosen),
        click: () => pick(span), keydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(span); } } },
        ...run(span.start, span.end), h("span", { class: "entity-type", "aria-hidden": "true" }, span.type));
      text.append(mark);
      at = span.end;
    }
    text.append(...run(at, units.length));
    teach.textContent = JSON.stringify(spans) === before ? "It is right: teach it as it is" : "Teach this sentence";
    if (!keepTools) drawTools();
    if (focus) tools.querySelector("select, button")?.focus();
  }

  function run(from, to) {
    const parts = [];
    let plain = "";
    let began = from;
    const flush = (next) => { if (plain) parts.push(h("span", { "data-start": began }, plain)); plain = ""; began = next; };
    for (let index = from; index < to; index += 1) {
      const [shownAs, named] = units[index];
      if (!named) plain += shownAs;
      else { flush(index + 1); parts.push(h("span", { class: "control", "data-start": index }, shownAs)); }
    }
    flush(to);
    return parts;
  }

  function drawTools() {
    tools.hidden = chosen === null;
    if (chosen === null) return;
    const known = spans.find((each) => each.start === chosen.start && each.end === chosen.end);
    const names = [...lesson.types.map((each) => each.name), ...Object.keys(newTypes)];
    const types = h("select", { "aria-label": "type", change: () => (types.value === "+" ? askForType() : label(types.value)) },
      known ? null : h("option", { value: "" }, "is a …"),
      names.map((name) => h("option", { value: name, selected: known?.type === name }, name)),
      h("option", { value: "+" }, "a new type …"));
    tools.replaceChildren(h("b", { dir: "auto" }, surface(chosen.start, chosen.end)), types,
      known ? dropButton() : "", entityLink() ?? "");
  }

  /** To what is known of the chosen entity over all documents. */
  function entityLink() {
    const entity = shown.entities.find((each) => each.start === sentence.start + chosen.start && each.end === sentence.start + chosen.end);
    const href = entityHref(entity);
    return href && h("a", { href, click: (event) => event.target.closest("dialog").close() }, "Its entity over all documents");
  }

  function askForType() {
    const name = h("input", { type: "search", placeholder: "its name", "aria-label": "name of the new type", maxlength: 100 });
    const line = h("input", { type: "search", placeholder: "what it is, in a line", "aria-label": "description of the new type", maxlength: 500 });
    const add = () => {
      if (!name.value.trim() || !line.value.trim()) return;
      newTypes[name.value.trim()] = line.value.trim();
      label(name.value.trim(), true);
    };
    tools.append(name, line, h("button", { type: "button", click: add }, "Add the type"));
    name.focus();
  }

  function pick({ start, end }) {
    chosen = { start, end };
    draw({ focus: true });
  }

  function label(type, isNew = false) {
    if (!type) return;
    const { start, end } = chosen;
    spans = spans.filter((each) => each.end <= start || each.start >= end);
    spans.push({ start, end, type });
    spans.sort((a, b) => a.start - b.start);
    doubts.replaceChildren();
    if (isNew) {
      draw({ focus: true });
      return;
    }
    // The choice keeps the focus: whoever types the name of a type is not through with it.
    draw({ keepTools: true });
    if (!tools.querySelector(".drop")) tools.append(dropButton());
  }

  const dropButton = () => h("button", { type: "button", class: "drop", click: drop }, "Is no entity");

  function drop() {
    spans = spans.filter((each) => each.start !== chosen.start || each.end !== chosen.end);
    chosen = null;
    doubts.replaceChildren();
    draw();
    teach.focus();
  }

  /** Adding by keyboard: a part of the text is typed, instead of selected. */
  function finder() {
    const words = h("input", { type: "search", placeholder: "or type words of the text", "aria-label": "words of the text to add", maxlength: 200 });
    const find = () => {
      const wanted = [...words.value.trim()];
      if (wanted.length === 0) return;
      for (let start = 0; start + wanted.length <= units.length; start += 1) {
        const end = start + wanted.length;
        const fits = wanted.every((char, index) => !units[start + index][1] && units[start + index][0].toLowerCase() === char.toLowerCase());
        if (fits && spans.every((each) => each.end <= start || each.start >= end)) {
          words.value = "";
          pick({ start, end });
          return;
        }
      }
      note.textContent = `“${words.value}” is not in the sentence, or is marked already.`;
    };
    return h("form", { class: "row", submit: (event) => { event.preventDefault(); find(); } }, words, h("button", { type: "submit", class: "plain-submit" }, "Find"));
  }

  text.addEventListener("pointerup", () => setTimeout(takeSelection));
  function takeSelection() {
    const selection = getSelection();
    if (!selection || selection.isCollapsed || !text.contains(selection.anchorNode) || !text.contains(selection.focusNode)) return;
    let [start, end] = [offset(selection.anchorNode, selection.anchorOffset), offset(selection.focusNode, selection.focusOffset)].sort((a, b) => a - b);
    const blank = (index) => /\s/u.test(units[index][0]);
    while (start < end && blank(start)) start += 1;
    while (end > start && blank(end - 1)) end -= 1;
    if (start < end) pick({ start, end });
  }

  function offset(node, at) {
    const part = (node.nodeType === Node.TEXT_NODE ? node.parentElement : node.childNodes[at] ?? node).closest?.("[data-start]");
    if (!part) return units.length;
    if (part.classList.contains("control")) return Number(part.dataset.start);
    return Number(part.dataset.start) + (node.nodeType === Node.TEXT_NODE ? [...node.textContent.slice(0, at)].length : 0);
  }

  /** Whether it is taught. */
  async function send(sure) {
    problem.textContent = note.textContent = "";
    teach.disabled = true;
    const used = Object.fromEntries(Object.entries(newTypes).filter(([name]) => spans.some((each) => each.type === name)));
    try {
      const answer = await ask("/api/lesson", { place: shown.place, start: sentence.start, spans, types: used, sure });
      if (answer.taught) {
        doubts.replaceChildren();
        note.textContent = "Taught. Workers know it within seconds.";
        element.classList.add("taught");
        teach.textContent = "Taught";
        end();
        return true;
      }
      doubts.replaceChildren(
        h("p", {}, "The pool disagrees:"),
        h("ul", {}, answer.disagreements.map((each) => h("li", { dir: "auto" }, each))),
        h("div", { class: "row" }, h("button", { type: "button", class: "main", click: () => send(true) }, "Teach it all the same"),
          h("button", { type: "button", click: () => { doubts.replaceChildren(); teach.focus(); } }, "Leave it")));
      decide();
    } catch (error) {
      problem.textContent = error.message;
    } finally {
      if (!isTaught()) teach.disabled = false;
    }
    return false;
  }

  const isTaught = () => element.classList.contains("taught");
  const decide = () => (doubts.querySelector("button") ?? teach).focus();

  draw();
  return {
    element, sentence, length: units.length, send, decide, isTaught, focus: () => teach.focus(),
    choose(at) {
      const span = spans.find((each) => at >= each.start && at < each.end);
      if (span) pick(span);
    },
  };
}
