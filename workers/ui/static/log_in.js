// Showing a token.

import { h } from "./dom.js";
import { ask } from "./server.js";

export function logInView(then) {
  const problem = h("p", { class: "problem", role: "alert" });
  const token = h("input", { type: "password", id: "token", autocomplete: "current-password", required: true });
  const submit = async (event) => {
    event.preventDefault();
    problem.textContent = "";
    try {
      await ask("/api/login", { token: token.value });
      await then();
    } catch (error) {
      problem.textContent = error.message;
      token.select();
    }
  };
  return h(
    "section",
    { class: "card narrow", "aria-labelledby": "log-in" },
    h("h1", { id: "log-in" }, "Log in"),
    h("p", {}, "Whoever runs this page has a token for readers and one for teachers."),
    h("form", { submit }, h("label", { for: "token" }, "Token"), token, h("button", { type: "submit" }, "Log in")),
    problem,
  );
}
