// A text that is pasted, tagged at once, and why.

import { asSeconds, h, plural } from "./dom.js";
import { documentArticle, documentList, keepReachable } from "./documents.js";
import { entityFacts } from "./marked_text.js";
import { ask } from "./server.js";

const EXAMPLE = "Ada Lovelace met Charles Babbage in London on Tuesday.";

export function tryView({ session }) {
  const title = h("div", { class: "title" }, h("h1", { id: "try-title" }, "Try it"));
  const element = h("section", { "aria-labelledby": "try-title" }, title);
  if (!session.can_try) {
    element.append(
      h("div", { class: "card" },
        h("p", {}, "Texts are tagged by the HTTP service, and none is configured here."),
        h("p", {}, "Start ", h("code", {}, "el4ner serve"), ", and set ", h("code", {}, "ui.serve_url"), " to its address.")),
    );
    return { element };
  }
  const problem = h("p", { class: "problem", role: "alert" });
  const text = h("textarea", { id: "try-text", dir: "auto", required: true });
  text.value = EXAMPLE;
  const pool = h("select", { id: "try-pool" });
  const types = h("p", { class: "quiet" });
  const submit = h("button", { type: "submit" }, "Find entities");
  const summary = h("p", { class: "quiet", role: "status" });
  const list = documentList("the text with its entities");
  const reasons = h("div", { class: "reasons" });
  let pools = [];

  const poolChanged = () => {
    const chosen = pools.find((each) => each.name === pool.value);
    types.textContent = chosen ? `${plural(chosen.sentences, "labelled sentence")}; types: ${chosen.types.map((each) => each.name).join(", ")}.` : "";
  };
  pool.addEventListener("change", poolChanged);

  async function load() {
    problem.textContent = "";
    try {
      const answer = await ask("/api/pools");
      pools = answer.pools;
      pool.replaceChildren(...pools.map(({ name }) => h("option", { value: name, selected: name === answer.default }, name)));
      poolChanged();
    } catch (error) {
      problem.textContent = error.message;
    }
  }

  async function tag(event) {
    event.preventDefault();
    problem.textContent = summary.textContent = "";
    submit.disabled = true;
    const began = performance.now();
    try {
      if (pools.length === 0) await load();
      const shown = await ask("/api/try", { text: text.value, pool: pool.value || null });
      const took = asSeconds((performance.now() - began) / 1000);
      list.replaceChildren(documentArticle({ ...shown, id: "your text" }));
      keepReachable(list);
      summary.textContent = shown.error
        ? `${shown.error.code}: ${shown.error.message}`
        : `${plural(shown.entities.length, "entity", "entities")} in ${took}.`;
      reasons.replaceChildren(...shown.entities.map((entity) => h("div", { class: "card reason" }, entityFacts(entity, shown))));
    } catch (error) {
      problem.textContent = error.message;
    } finally {
      submit.disabled = false;
    }
  }

  element.append(
    h("form", { class: "card try-form", submit: tag },
      h("label", { for: "try-text" }, "Text"), text,
      h("div", { class: "row" }, h("label", { for: "try-pool" }, "Pool"), pool, submit), types,
      h("p", { class: "quiet" }, "The text goes to the HTTP service alone: it does not become a document of the stream.")),
    problem, summary, list, h("h2", { class: "reasons-title" }, "Why"), reasons,
  );
  load();
  return { element };
}
