import { h } from "./dom.js";

export function healthView() {
  return { element: h("section", {}, h("h1", {}, "Health")) };
}
