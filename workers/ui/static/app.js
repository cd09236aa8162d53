// The page: who looks, which view is shown, and what the broker's state is.

import { asNumber, asTime, h, plural } from "./dom.js";
import { hideDetails } from "./details.js";
import { logInView } from "./log_in.js";
import { ask, listen, usePageToken } from "./server.js";
import { deadLettersView } from "./dead_letters.js";
import { entitiesView } from "./entities.js";
import { useEntityLinks } from "./entity_links.js";
import { healthView } from "./health.js";
import { liveView } from "./live.js";
import { reviewView } from "./review.js";
import { trendsView } from "./trends.js";
import { tryView } from "./try_it.js";

const VIEWS = [
  { name: "live", title: "Live", make: liveView },
  { name: "trends", title: "Trends", make: trendsView },
  { name: "entities", title: "Entities", make: entitiesView },
  { name: "review", title: "Review", make: reviewView },
  { name: "try", title: "Try it", make: tryView },
  { name: "letters", title: "Dead letters", make: deadLettersView },
  { name: "health", title: "Health", make: healthView },
];

const main = document.getElementById("main");
const broker = document.getElementById("broker");
const banner = document.getElementById("banner");
const rate = document.getElementById("rate");

let session = null;
let shown = null; // the view: { element, leave?, status?, documents?, query? }
let stopListening = () => {};
let latestStatus = null;

// --- the broker ---

const STATES = { following: "Following", connecting: "Connecting", lost: "Broker lost" };

function told(status) {
  latestStatus = status;
  setState(status.broker, STATES[status.broker]);
  rate.textContent = status.broker === "following" ? `${asNumber(status.rate)} documents/s` : "";
  const problem = status.broker === "lost" ? `${status.detail}, since ${asTime(status.since * 1000)}.` : "";
  tell(problem);
  shown?.status?.(status);
}

async function away() {
  setState("lost", "Server away");
  rate.textContent = "";
  tell("The page's server does not answer; trying again.");
  // Or it was started again, and knows neither the session nor what it told this page; or the session is over.
  try {
    const now = await ask("/api/session");
    if (now.role !== session?.role) location.reload();
    usePageToken(now.page_token);
  } catch (problem) {
    if (problem.status !== 401 || session === null) return;
    stopListening();
    tell("");
    begin();
  }
}

/** Only what changes is written: a screen reader says it each time. */
function setState(state, words) {
  if (broker.textContent === words) return;
  broker.hidden = false;
  broker.className = `pill ${state}`;
  broker.textContent = words;
}

function tell(problem) {
  if (banner.textContent !== problem) banner.textContent = problem;
  banner.hidden = problem === "";
}

/** Listen to the server, and to documents if the view shows them. Again after its filter has changed. */
function listenAnew() {
  stopListening();
  stopListening = () => {};
  if (session === null || document.hidden) return;
  stopListening = listen(shown?.query?.() ?? "documents=no", {
    status: told,
    documents: (batch) => shown?.documents?.(batch),
    away,
  });
}

// A tab that nobody sees costs the server nothing.
document.addEventListener("visibilitychange", listenAnew);

// --- views ---

function route() {
  if (session === null) return;
  const name = location.hash.slice(1).split("/")[0];
  const view = VIEWS.find((each) => each.name === name) ?? VIEWS[0];
  shown?.leave?.();
  hideDetails();
  const had = shown !== null;
  shown = view.make({ session, listenAnew, status: () => latestStatus });
  document.title = `${view.title} · el4ner`;
  main.replaceChildren(shown.element);
  for (const link of document.querySelectorAll("#views a")) {
    if (link.hash === `#${view.name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (latestStatus) shown.status?.(latestStatus);
  listenAnew();
  if (had) main.focus({ preventScroll: true });
}

async function begin() {
  try {
    session = await ask("/api/session");
  } catch (problem) {
    session = null;
    if (problem.status === 401 && !problem.message.includes("proxy")) main.replaceChildren(logInView(begin));
    else main.replaceChildren(h("p", { class: "problem", role: "alert" }, problem.message));
    return;
  }
  usePageToken(session.page_token);
  useEntityLinks(session.has_entities);
  document.getElementById("views").replaceChildren(
    ...VIEWS.map(({ name, title }) => h("a", { href: `#${name}` }, title)),
  );
  const who = document.getElementById("who");
  if (session.may_leave) who.replaceChildren(`${session.role} `, h("button", { type: "button", class: "plain", click: leave }, "Log out"));
  else who.textContent = session.name === "local" ? "" : `${session.name} (${session.role})`;
  route();
}

async function leave() {
  await ask("/api/logout", {});
  location.reload();
}

// --- dark and light ---

const theme = document.getElementById("theme");
const THEMES = { auto: "Theme: system", light: "Theme: light", dark: "Theme: dark" };

function useTheme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  theme.textContent = THEMES[name];
  localStorage.setItem("el4ner-theme", name);
  dispatchEvent(new Event("theme"));
}

theme.addEventListener("click", () => {
  const names = Object.keys(THEMES);
  useTheme(names[(names.indexOf(document.documentElement.dataset.theme ?? "auto") + 1) % names.length]);
});

const known = localStorage.getItem("el4ner-theme");
useTheme(known in THEMES ? known : "auto");
addEventListener("hashchange", route);
begin();
