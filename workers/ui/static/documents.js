// A list of documents that is moved through by keyboard: up and down between documents, left and right between entities.

import { explainEntities } from "./details.js";
import { h } from "./dom.js";
import { openEntity } from "./entity_links.js";
import { openLesson } from "./lesson.js";
import { documentHead, markedText } from "./marked_text.js";

/** An article with a document. Where it may be taught from, Enter or a click opens it for correction. */
export function documentArticle(shown, options = {}) {
  const article = h("article", { class: "document", tabindex: "-1", "aria-label": `document ${shown.id}` });
  article.dataset.id = shown.id;
  const head = documentHead(shown);
  const text = markedText(shown, options);
  article.append(head, text);
  article.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() === "e" && !event.ctrlKey && !event.metaKey && !event.altKey) openEntity(event.target);
  });
  if (!options.teacher || !shown.place || !shown.readable || shown.pool === null) {
    // Where nothing is to be corrected a click leads to the entity, unless it ends a selection.
    text.addEventListener("click", (event) => getSelection()?.isCollapsed !== false && openEntity(event.target));
    article.addEventListener("keydown", (event) => event.key === "Enter" && openEntity(event.target));
    return article;
  }
  const correct = (entity) => openLesson(shown, { chosen: entity ? entity.entity.start : null });
  head.append(h("button", { type: "button", class: "plain correct", tabindex: "-1", click: () => correct(null) }, "Correct"));
  article.setAttribute("aria-keyshortcuts", "Enter");
  article.classList.add("teachable");
  text.addEventListener("click", (event) => {
    const entity = event.target.closest(".entity");
    if (entity) correct(entity);
  });
  article.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.target.matches("button")) return;
    event.preventDefault();
    correct(event.target.closest(".entity"));
  });
  return article;
}

/** An empty list. One element in it is reached by Tab; the arrows lead on. */
export function documentList(label) {
  const list = h("div", { class: "documents", role: "feed", "aria-label": label, "aria-busy": "false" });
  explainEntities(list);
  list.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const article = event.target.closest?.("article");
    const next = article && target(event.key, article, event.target);
    if (!next) return;
    event.preventDefault();
    next.focus();
    next.scrollIntoView({ block: "nearest" });
  });
  list.addEventListener("focusin", (event) => {
    const article = event.target.closest("article");
    for (const each of list.querySelectorAll('article[tabindex="0"]')) if (each !== article) each.tabIndex = -1;
    if (article) article.tabIndex = 0;
  });
  return list;
}

/** Have one article of the list be reached by Tab. */
export function keepReachable(list) {
  if (!list.querySelector('article[tabindex="0"]')) {
    const first = list.querySelector("article");
    if (first) first.tabIndex = 0;
  }
}

function target(key, article, from) {
  const entities = [...article.querySelectorAll(".entity")];
  const at = entities.indexOf(from);
  switch (key) {
    case "ArrowDown":
    case "PageDown":
      return article.nextElementSibling;
    case "ArrowUp":
    case "PageUp":
      return article.previousElementSibling;
    case "ArrowRight":
      return entities[at + 1];
    case "ArrowLeft":
      return at > 0 ? entities[at - 1] : at === 0 ? article : null;
    case "Home":
      return article.parentElement.firstElementChild;
    case "End":
      return article.parentElement.lastElementChild;
    default:
      return null;
  }
}
