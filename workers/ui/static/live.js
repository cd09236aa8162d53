// Documents as they come.

import { asCount, asNumber, asPercent, h, plural, settled } from "./dom.js";
import { documentArticle, documentList, keepReachable } from "./documents.js";
import { colourOf } from "./types.js";

const MOST_SHOWN = 100;
const MOST_HELD = 100;

export function liveView({ session, listenAnew }) {
  const teacher = session.role === "teacher";
  const filter = { types: new Set(), pool: "", status: "", surface: "", confidence: 0 };
  let paused = false;
  let held = []; // documents that came while somebody reads
  const counts = { seen: 0, matched: 0, shown: 0, since: performance.now() };

  const list = documentList("tagged documents, latest first");
  const note = h("p", { class: "quiet sampling" });
  const empty = h("p", { class: "empty" }, "Waiting for documents.");
  const more = h("button", { type: "button", class: "more", hidden: true, click: () => release() });
  const pause = h("button", { type: "button", "aria-pressed": "false", click: () => setPaused(!paused) }, "Pause");

  // --- what comes ---

  function documents(batch) {
    if (batch.anew) {
      list.replaceChildren();
      held = [];
      more.hidden = true;
    }
    counts.seen += batch.seen;
    counts.matched += batch.matched;
    counts.shown += batch.documents.length;
    for (const id of batch.deleted) {
      for (const article of list.querySelectorAll("article")) if (article.dataset.id === id) article.remove();
      held = held.filter((each) => each.id !== id);
    }
    if (batch.documents.length === 0) return;
    if (isRead()) {
      held = [...held, ...batch.documents].slice(-MOST_HELD);
      more.hidden = false;
      more.textContent = held.length < MOST_HELD ? `Show ${plural(held.length, "new document")}` : "Show the latest documents";
    } else add(batch.documents);
  }

  const isRead = () => list.matches(":hover") || list.contains(document.activeElement);

  function release() {
    add(held);
    held = [];
    more.hidden = true;
  }

  function add(shown) {
    if (shown.length === 0) return;
    empty.hidden = true;
    const wanted = (entity) => aboutEntities() && wants(entity);
    // The latest first; a document that comes again (a later revision, or after the broker was away) replaces itself.
    for (const each of shown) {
      for (const old of list.querySelectorAll("article")) if (old.dataset.id === each.id) old.remove();
      const article = documentArticle(each, { highlight: wanted, teacher });
      list.prepend(article);
    }
    while (list.childElementCount > MOST_SHOWN) list.lastElementChild.remove();
    keepReachable(list);
  }

  list.addEventListener("pointerleave", () => !isRead() && release());
  list.addEventListener("focusout", () => setTimeout(() => !isRead() && release()));

  // --- pause ---

  function setPaused(value) {
    paused = value;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Go on" : "Pause";
    listenAnew();
  }

  // --- filters ---

  const aboutEntities = () => filter.types.size > 0 || filter.surface !== "" || filter.confidence > 0;
  const wants = (entity) =>
    (filter.types.size === 0 || filter.types.has(entity.type)) &&
    entity.confidence >= filter.confidence &&
    (filter.surface === "" || entity.text.toLowerCase().includes(filter.surface.toLowerCase()));

  const changed = settled(() => {
    list.replaceChildren();
    held = [];
    more.hidden = true;
    empty.hidden = false;
    empty.textContent = "No document that fits has come yet.";
    Object.assign(counts, { seen: 0, matched: 0, shown: 0, since: performance.now() });
    listenAnew();
  });

  const typeChips = h("div", { class: "chips" }, h("span", { class: "quiet" }, "Types come with the first documents."));
  const knownTypes = new Set();
  const poolChoice = h("select", { id: "pool", change: () => ((filter.pool = poolChoice.value), changed()) }, h("option", { value: "" }, "all pools"));
  const knownPools = new Set();
  const statusChoice = h(
    "select",
    { id: "status", change: () => ((filter.status = statusChoice.value), changed()) },
    h("option", { value: "" }, "any status"),
    ["complete", "partial", "failed"].map((each) => h("option", { value: each }, each)),
  );
  const surface = h("input", {
    type: "search", id: "surface", placeholder: "Part of an entity", maxlength: 200,
    input: () => ((filter.surface = surface.value.trim()), changed()),
  });
  const confidenceShown = h("output", { for: "confidence" }, "any");
  const confidence = h("input", {
    type: "range", id: "confidence", min: 0, max: 1, step: 0.05, value: 0,
    input: () => {
      filter.confidence = Number(confidence.value);
      confidenceShown.textContent = filter.confidence === 0 ? "any" : `${asPercent(filter.confidence)} or more`;
      confidence.setAttribute("aria-valuetext", confidenceShown.textContent);
      changed();
    },
  });
  const reset = h("button", {
    type: "button", class: "plain",
    click: () => {
      Object.assign(filter, { types: new Set(), pool: "", status: "", surface: "", confidence: 0 });
      for (const box of typeChips.querySelectorAll("input")) box.checked = false;
      poolChoice.value = statusChoice.value = surface.value = "";
      confidence.value = "0";
      confidenceShown.textContent = "any";
      changed();
    },
  }, "Reset");

  function addType(type) {
    if (knownTypes.size === 0) typeChips.replaceChildren();
    knownTypes.add(type);
    const box = h("input", {
      type: "checkbox", value: type,
      change: () => {
        if (box.checked) filter.types.add(type);
        else filter.types.delete(type);
        changed();
      },
    });
    typeChips.append(h("label", { class: `chip ${colourOf(type)}` }, box, type));
  }

  function status({ types, pools, skipped, unreadable }) {
    for (const type of types) if (!knownTypes.has(type)) addType(type);
    for (const pool of pools) {
      if (knownPools.has(pool)) continue;
      knownPools.add(pool);
      poolChoice.append(h("option", { value: pool }, pool));
    }
    tellSampling(skipped, unreadable);
  }

  function tellSampling(skipped, unreadable) {
    const parts = [];
    if (paused) parts.push("Paused: what comes now is not shown.");
    else if (counts.shown < counts.matched) {
      const seconds = (performance.now() - counts.since) / 1000;
      parts.push(`A sample: ${asCount(counts.shown)} shown of ${asCount(counts.matched)} that fit (${asNumber(counts.matched / seconds)}/s).`);
    } else if (aboutEntities() || filter.pool || filter.status) {
      parts.push(`${plural(counts.matched, "document")} of ${asCount(counts.seen)} since then fit.`);
    }
    if (skipped) parts.push(`The page was behind and skipped ${plural(skipped, "message")}.`);
    if (unreadable) parts.push(`${plural(unreadable, "message")} could not be read.`);
    note.textContent = parts.join(" ");
  }

  const query = () => {
    if (paused) return "documents=deleted"; // what is shown meanwhile may be deleted
    const parts = new URLSearchParams({ documents: "yes" });
    for (const type of filter.types) parts.append("type", type);
    if (filter.pool) parts.append("pool", filter.pool);
    if (filter.status) parts.append("status", filter.status);
    if (filter.surface) parts.append("surface", filter.surface);
    if (filter.confidence) parts.append("min_confidence", String(filter.confidence));
    return parts.toString();
  };

  const element = h(
    "section",
    { class: "live", "aria-labelledby": "live-title" },
    h("div", { class: "title" }, h("h1", { id: "live-title" }, "Live"), pause),
    h(
      "details",
      { class: "card filters", open: matchMedia("(min-width: 40rem)").matches },
      h("summary", {}, "Filter"),
      h(
        "form",
        { class: "filter-grid", submit: (event) => event.preventDefault(), "aria-label": "Filter" },
        h("fieldset", { class: "wide" }, h("legend", {}, "Types"), typeChips),
        h("div", {}, h("label", { for: "surface" }, "Entity"), surface),
        h("div", {}, h("label", { for: "confidence" }, "Confidence ", confidenceShown), confidence),
        h("div", {}, h("label", { for: "pool" }, "Pool"), poolChoice),
        h("div", {}, h("label", { for: "status" }, "Status"), statusChoice),
        h("div", { class: "reset" }, reset),
      ),
    ),
    note,
    h("p", { class: "quiet keys" }, "Keys: ↑ ↓ between documents, → ← between entities, Esc closes what is known of one", teacher ? ", Enter corrects" : "", session.has_entities ? ", E leads to the entity over all documents." : "."),
    more,
    empty,
    list,
  );
  return { element, documents, status, query };
}
