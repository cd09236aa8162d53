// What to look at first: sentences of a pool's documents by what teaching them would bring, to confirm, correct or dismiss.

import { asCount, asNumber, asPercent, h, plural, settled } from "./dom.js";
import { documentList, keepReachable } from "./documents.js";
import { confirmSentence, openLesson } from "./lesson.js";
import { documentHead, markedText } from "./marked_text.js";
import { ask } from "./server.js";
import { colourOf } from "./types.js";

const REFRESH = 5000;
const DOUBTFUL = 0.9; // an entity that is less certain is named
const MOST_NAMED = 3;

export function reviewView({ session }) {
  const teacher = session.role === "teacher";
  let pool = "";
  let timer = 0;
  let asked = 0; // of several answers the one to the latest question counts
  let left = false;
  const problem = h("p", { class: "problem", role: "alert" });
  const done = h("p", { class: "review-done", role: "status" });
  const note = h("p", { class: "quiet" });
  const empty = h("p", { class: "empty" }, "Nothing to look at yet.");
  const more = h("button", { type: "button", class: "more", hidden: true, click: () => refresh({ anyway: true, place: 0 }) });
  const list = documentList("sentences to look at, those that teach most first");
  const pools = h("select", { id: "review-pool", change: () => { pool = pools.value; done.textContent = ""; refresh({ anyway: true }); } });

  // --- the list ---

  // A lesson is about a sentence of the list, and its dialog stands elsewhere.
  const isRead = () => list.matches(":hover") || list.contains(document.activeElement) || document.querySelector("dialog[open]") !== null;

  async function refresh({ anyway = false, place = null } = {}) {
    clearTimeout(timer);
    if (left) return;
    const number = (asked += 1);
    try {
      const answer = await ask(`/api/queue?${new URLSearchParams({ pool })}`);
      if (left || number !== asked) return;
      problem.textContent = answer.problem ? `The pools cannot be read: ${answer.problem}` : "";
      show(answer);
      // While somebody reads, sentences keep their places.
      if (anyway || !isRead()) fill(answer, place);
      else tellOfNew(answer);
    } catch (error) {
      problem.textContent = error.message;
    }
    timer = setTimeout(refresh, REFRESH);
  }

  function show({ pools: names, pool: current, waiting, documents, valued }) {
    if (names.length !== pools.options.length) pools.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
    if (current !== null) pools.value = pool = current;
    const sample = valued < documents ? ` A sample is looked at: ${asCount(valued)} of ${plural(documents, "document")} so far.` : "";
    note.textContent = documents === 0
      ? `No document of pool ${current ?? "?"} has come since the page started.`
      : `${plural(waiting, "sentence")} of ${plural(valued, "document")} since the page started could teach pool ${current} something.${sample}`;
  }

  const keyOf = (shown) => `${shown.place}:${shown.start}`;

  function tellOfNew({ sentences }) {
    const known = new Set([...list.children].map((each) => each.dataset.key));
    const count = sentences.filter((each) => !known.has(keyOf(each))).length;
    more.hidden = count === 0;
    more.textContent = `Show ${plural(count, "new sentence")}`;
  }

  function fill({ sentences }, place) {
    more.hidden = true;
    const at = place ?? [...list.children].indexOf(document.activeElement?.closest?.("article"));
    list.replaceChildren(...sentences.map(article));
    empty.hidden = sentences.length > 0;
    keepReachable(list);
    // Whoever works through the list by keyboard goes on where they were.
    if (at >= 0) (list.children[Math.min(at, list.childElementCount - 1)] ?? pools).focus({ preventScroll: place === null });
  }

  function article(shown) {
    const element = h("article", { class: `document${teacher ? " teachable" : ""}`, tabindex: "-1", "aria-label": `sentence of document ${shown.id}` });
    element.dataset.id = shown.id;
    element.dataset.key = keyOf(shown);
    const head = documentHead(shown);
    head.append(h("span", { class: "worth", title: "by the confidences, and by how much of it is new" }, `${asNumber(shown.value)} mistakes expected`));
    const text = markedText(shown);
    element.append(head, text, reasons(shown));
    if (!teacher) return element;
    const button = (title, keys, does, classes = "") =>
      h("button", { type: "button", class: classes, tabindex: "-1", "aria-keyshortcuts": keys, click: () => does(element, shown) }, title);
    element.append(h("div", { class: "row review-buttons" },
      button("It is right", "R", confirm), button("Correct", "Enter", correct), button("Dismiss", "D", dismiss, "plain")));
    text.addEventListener("click", (event) => {
      const entity = event.target.closest(".entity");
      if (entity) correct(element, shown, entity.entity.start);
    });
    element.addEventListener("keydown", (event) => {
      // A key that is held down says nothing of the sentence that comes next.
      if (event.repeat || event.altKey || event.ctrlKey || event.metaKey || event.target.matches("button")) return;
      const entity = event.target.closest(".entity")?.entity.start ?? null;
      const does = { enter: () => correct(element, shown, entity), r: () => confirm(element, shown), d: () => dismiss(element, shown) }[event.key.toLowerCase()];
      if (!does) return;
      event.preventDefault();
      does();
    });
    return element;
  }

  /** Why it is there. */
  function reasons(shown) {
    const doubtful = shown.entities.filter((each) => each.confidence < DOUBTFUL).sort((a, b) => a.confidence - b.confidence);
    const parts = [];
    if (doubtful.length) {
      parts.push(h("span", {}, "Doubtful: ", doubtful.slice(0, MOST_NAMED).map((each, index) => [index ? ", " : "", h("bdi", {}, each.text), " is ",
        h("span", { class: `vote ${colourOf(each.type)}` }, each.type), ` with ${asPercent(each.confidence)}`]),
      doubtful.length > MOST_NAMED ? ` and ${asCount(doubtful.length - MOST_NAMED)} more` : ""));
    }
    if (shown.new_words.length) {
      parts.push(h("span", {}, "New to the pool: ", shown.new_words.map((word, index) => [index ? ", " : "", h("bdi", { class: "new-word" }, word)]),
        shown.more_words ? ` and ${asCount(shown.more_words)} more` : ""));
    }
    if (parts.length === 0) parts.push(h("span", {}, "Nothing in it is doubtful or new: it would only confirm the pool."));
    return h("p", { class: "quiet review-reasons" }, parts);
  }

  list.addEventListener("focusin", (event) => {
    // Tab leads from a sentence to its own buttons, and from there out of the list.
    const current = event.target.closest("article");
    for (const button of list.querySelectorAll("button")) button.tabIndex = current?.contains(button) ? 0 : -1;
  });
  // What came meanwhile is shown when nobody reads any more.
  const settle = settled(() => { if (!isRead()) refresh(); });
  list.addEventListener("pointerleave", settle);
  list.addEventListener("focusout", settle);

  // --- what a teacher does ---

  function gone(element, words) {
    const place = [...list.children].indexOf(element);
    element.remove();
    done.textContent = words;
    problem.textContent = "";
    refresh({ anyway: true, place: Math.max(0, place) });
  }

  const taught = (element) => () => gone(element, "Taught. Workers know it within seconds.");

  function correct(element, shown, chosen = null) {
    const at = chosen === null ? null : shown.start + chosen;
    openLesson(shown, { chosen: at, only: shown.start, taught: taught(element) });
  }

  async function confirm(element, shown) {
    if (element.getAttribute("aria-busy") === "true") return; // a second press teaches it no second time
    element.setAttribute("aria-busy", "true");
    await confirmSentence(shown, taught(element));
    element.removeAttribute("aria-busy");
  }

  async function dismiss(element, shown) {
    if (element.getAttribute("aria-busy") === "true") return;
    element.setAttribute("aria-busy", "true");
    try {
      const { dismissed } = await ask("/api/queue/dismiss", { pool: shown.pool, place: shown.place, start: shown.start });
      gone(element, dismissed ? "Dismissed: neither it nor one like it comes again." : "It had left the queue already; one like it may be there.");
    } catch (error) {
      problem.textContent = error.message;
      element.removeAttribute("aria-busy");
    }
  }

  // --- what the stream says ---

  function documents({ deleted, anew }) {
    if (anew) list.replaceChildren();
    for (const id of deleted) for (const each of [...list.children]) if (each.dataset.id === id) each.remove();
    if (list.childElementCount === 0) empty.hidden = false;
  }

  refresh({ anyway: true });
  const element = h("section", { class: "review", "aria-labelledby": "review-title" },
    h("div", { class: "title" }, h("h1", { id: "review-title" }, "Review"),
      h("div", { class: "row" }, h("label", { for: "review-pool" }, "Pool"), pools)),
    h("p", {}, "What teaches most, first: where answers are least certain, and least like what the pool has. ",
      teacher ? "Confirm a sentence, correct it, or dismiss it; what is left is then valued anew." : "A teacher may correct these sentences."),
    note,
    h("p", { class: "quiet keys" }, "Keys: ↑ ↓ between sentences, → ← between entities", teacher ? ", Enter corrects, R says that it is right, D dismisses." : "."),
    problem, done, more, empty, list);
  return { element, documents, query: () => "documents=deleted", leave: () => { left = true; clearTimeout(timer); } };
}
