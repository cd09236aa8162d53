// The box that says what is known of an entity, beside the one that is pointed at or has the focus.

import { entityFacts } from "./marked_text.js";

const box = document.getElementById("details");
let about = null;

/** Show it for entities inside `container`. */
export function explainEntities(container) {
  container.addEventListener("pointerover", (event) => show(event.target.closest?.(".entity")));
  container.addEventListener("pointerout", (event) => {
    const next = event.relatedTarget;
    if (!(next instanceof Element) || !next.closest(".entity")) show(focused(container));
  });
  container.addEventListener("focusin", (event) => show(event.target.closest?.(".entity")));
  container.addEventListener("focusout", () => show(null));
}

export function hideDetails() {
  show(null);
}

const focused = (container) =>
  container.contains(document.activeElement) ? document.activeElement.closest(".entity") : null;

function show(element) {
  if (element === about) return;
  about?.removeAttribute("aria-describedby");
  about = element;
  box.hidden = !element;
  if (!element) return;
  box.replaceChildren(...entityFacts(element.entity, element.shown));
  element.setAttribute("aria-describedby", "details");
  place(element);
}

function place(element) {
  if (matchMedia("(max-width: 40rem)").matches) {
    box.style.left = box.style.top = ""; // at the bottom, by page.css
    return;
  }
  const at = element.getClientRects()[0] ?? element.getBoundingClientRect();
  const left = Math.max(8, Math.min(at.left, innerWidth - box.offsetWidth - 8));
  const below = at.bottom + 6;
  const top = below + box.offsetHeight < innerHeight ? below : Math.max(8, at.top - box.offsetHeight - 6);
  box.style.left = `${left}px`;
  box.style.top = `${top}px`;
}

addEventListener("scroll", () => about && place(about), { passive: true });
addEventListener("keydown", (event) => event.key === "Escape" && show(null));
