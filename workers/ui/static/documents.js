// A list of documents that is moved through by keyboard: up and down between documents, left and right between entities.

import { explainEntities } from "./details.js";
import { h } from "./dom.js";
import { documentHead, markedText } from "./marked_text.js";

/** An article with a document. */
export function documentArticle(shown, options = {}) {
  const article = h("article", { class: "document", tabindex: "-1", "aria-label": `document ${shown.id}` });
  article.dataset.id = shown.id;
  article.append(documentHead(shown), markedText(shown, options));
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
