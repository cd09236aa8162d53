// What the stages gave up on: list it, look into it, send it again.

import { asTime, h, plural } from "./dom.js";
import { markedText } from "./marked_text.js";
import { ask } from "./server.js";

const TIMES = { "": "all that are kept", 1: "the last hour", 24: "the last day", 168: "the last week" };

export function deadLettersView({ session }) {
  const teacher = session.role === "teacher";
  let hours = "";
  let kind = "";
  const chosen = new Set();
  const problem = h("p", { class: "problem", role: "alert" });
  const note = h("p", { class: "quiet", role: "status" });
  const body = h("tbody");
  const kinds = h("select", { id: "letter-kind", change: () => ((kind = kinds.value), load()) });
  const times = h("select", { id: "letter-hours", change: () => ((hours = times.value), load()) },
    Object.entries(TIMES).map(([value, title]) => h("option", { value, selected: value === hours }, title)));
  const replay = h("button", { type: "button", class: "main", disabled: true, click: confirmReplay }, "Send again …");
  const reload = h("button", { type: "button", click: () => load() }, "Look again");
  const every = h("input", { type: "checkbox", "aria-label": "choose all", change: chooseAll });
  const dialog = h("dialog", { class: "dialog", "aria-labelledby": "dialog-title" });

  async function load() {
    problem.textContent = "";
    const query = new URLSearchParams();
    if (hours) query.set("hours", hours);
    if (kind) {
      const [stage, code] = kind.split("\n");
      query.set("stage", stage);
      query.set("code", code);
    }
    try {
      show(await ask(`/api/letters?${query}`));
    } catch (error) {
      problem.textContent = error.message;
      body.replaceChildren();
    }
  }

  function show({ letters, kinds: known, most_listed: most }) {
    const all = known.reduce((sum, each) => sum + each.count, 0);
    kinds.replaceChildren(
      h("option", { value: "" }, `all kinds (${all})`),
      ...known.map(({ stage, code, count }) => {
        const value = `${stage}\n${code}`;
        return h("option", { value, selected: value === kind }, `${stage}: ${code} (${count})`);
      }),
    );
    chosen.clear();
    every.checked = false;
    body.replaceChildren(...letters.map(row));
    if (letters.length === 0) body.append(h("tr", {}, h("td", { class: "empty", colspan: 6 }, "No dead letters: everything could be processed.")));
    note.textContent = letters.length >= most ? `The latest ${most} are listed.` : "";
    changed();
  }

  function row(letter) {
    const box = h("input", { type: "checkbox", value: letter.letter, "aria-label": `choose ${letter.letter}`,
      change: () => { if (box.checked) chosen.add(letter.letter); else chosen.delete(letter.letter); changed(); } });
    return h("tr", {},
      teacher ? h("td", {}, box) : null,
      h("td", {}, h("button", { type: "button", class: "link mono", click: () => look(letter.letter) }, letter.letter)),
      h("td", { "data-name": "when" }, asTime(letter.written_at)),
      h("td", { "data-name": "why" }, h("b", {}, letter.code ?? "?"), h("span", { class: "quiet" }, ` in ${letter.stage ?? "?"}`),
        letter.replays ? h("span", { class: "tag" }, `sent again ${letter.replays}×`) : null),
      h("td", { class: "mono id", dir: "auto" }, letter.document ?? "–"),
      h("td", { class: "message", dir: "auto" }, letter.message ?? ""));
  }

  function chooseAll() {
    for (const box of body.querySelectorAll("input")) {
      box.checked = every.checked;
      if (every.checked) chosen.add(box.value);
      else chosen.delete(box.value);
    }
    changed();
  }

  function changed() {
    replay.disabled = chosen.size === 0;
    replay.textContent = chosen.size ? `Send ${chosen.size} again …` : "Send again …";
  }

  async function look(name) {
    problem.textContent = "";
    try {
      const letter = await ask(`/api/letters/${encodeURIComponent(name)}`);
      const facts = [["why", `${letter.stage ?? "?"}: ${letter.code ?? "?"}`], ["in words", letter.message ?? ""],
        ["document", letter.document ?? "–"], ["from", `${letter.topic ?? "?"}-${letter.partition ?? "?"}-${letter.offset ?? "?"}`],
        ["tried", letter.attempts === null ? "?" : `${letter.attempts} times`], ["sent again", `${letter.replays} times`],
        ["failed first", asTime(letter.first_failed_at)], ["key", letter.key ?? "none"]];
      const value = letter.pieces
        ? markedText({ pieces: letter.pieces, entities: [], readable: true, cut_chars: letter.cut_chars })
        : letter.hex
          ? h("pre", {}, letter.hex.map(([at, bytes]) => `${at}  ${bytes}\n`).join(""))
          : h("p", { class: "quiet" }, "It has no value: it is a deletion.");
      value.classList.add("letter-value");
      openDialog(`Dead letter ${letter.letter}`,
        h("dl", { class: "facts" }, facts.map(([key, each]) => [h("dt", {}, key), h("dd", { dir: "auto" }, each)])),
        h("h3", {}, letter.hex ? "Its value is no text; in hex:" : "Its value"), value,
        letter.headers.length ? h("details", {}, h("summary", {}, plural(letter.headers.length, "header")),
          h("dl", { class: "facts mono" }, letter.headers.map(([key, each]) => [h("dt", {}, key), h("dd", {}, each ?? "null")]))) : null,
        h("div", { class: "buttons" }, close()));
    } catch (error) {
      problem.textContent = error.message;
    }
  }

  async function confirmReplay() {
    problem.textContent = "";
    const letters = [...chosen];
    try {
      const plan = await ask("/api/letters/plan", { letters });
      const left = letters.length - plan.letters.length;
      const send = h("button", { type: "button", class: "main", disabled: plan.letters.length === 0, click: () => sendAgain(plan.letters) },
        `Send ${plural(plan.letters.length, "message")} again`);
      openDialog("Send again?",
        h("p", {}, "Each message goes to the topic and partition that it came from, byte for byte. The letters stay."),
        h("ul", {}, plan.kinds.map((each) => h("li", {}, `${each.count} × ${each.code} (${each.stage}) to ${each.topic}`))),
        left ? h("p", { class: "quiet" }, `${left} are left out: the same message again, or of a topic that no stage reads.`) : null,
        h("div", { class: "buttons" }, close("Cancel"), send));
    } catch (error) {
      problem.textContent = error.message;
    }
  }

  async function sendAgain(letters) {
    for (const button of dialog.querySelectorAll("button")) button.disabled = true;
    try {
      const { sent } = await ask("/api/letters/replay", { letters });
      dialog.close();
      await load();
      note.textContent = `${plural(sent.length, "message")} sent again.`;
    } catch (error) {
      dialog.close();
      problem.textContent = error.message;
    }
  }

  const close = (words = "Close") => h("button", { type: "button", click: () => dialog.close() }, words);

  function openDialog(title, ...content) {
    dialog.replaceChildren(h("h2", { id: "dialog-title" }, title), ...content.filter(Boolean));
    dialog.showModal();
  }

  load();
  const head = ["letter", "when", "why", "document", "in words"].map((each) => h("th", { scope: "col" }, each));
  const element = h("section", { "aria-labelledby": "letters-title" },
    h("div", { class: "title" }, h("h1", { id: "letters-title" }, "Dead letters"),
      h("div", { class: "row" },
        h("span", { class: "named" }, h("label", { for: "letter-kind" }, "Kind"), kinds),
        h("span", { class: "named" }, h("label", { for: "letter-hours" }, "Written in"), times), reload, teacher ? replay : null)),
    problem, note,
    h("div", { class: "card table-card" }, h("table", { class: "letters" }, h("thead", {}, h("tr", {}, teacher ? h("th", {}, every) : null, head)), body)),
    dialog);
  return { element };
}
