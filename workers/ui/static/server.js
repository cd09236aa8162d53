// Asking the server. What goes wrong is a Problem, whose message is for people.

export class Problem extends Error {
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

let pageToken = null;

export function usePageToken(token) {
  pageToken = token;
}

/** The JSON at a path of ours. With a `body` it is sent there. */
export async function ask(path, body) {
  const options = { headers: {}, credentials: "same-origin" };
  if (body !== undefined) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  if (pageToken !== null) options.headers["X-EL4NER-Page"] = pageToken;
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Problem(0, "away", "The page's server does not answer. Is el4ner ui running?");
  }
  let answer;
  try {
    answer = await response.json();
  } catch {
    throw new Problem(response.status, "no-json", `The server answered ${response.status} without saying why.`);
  }
  if (!response.ok) throw new Problem(response.status, answer.code ?? "", answer.detail ?? answer.title ?? "");
  return answer;
}

/** Events from the server, until the returned function is called. EventSource comes back by itself. */
export function listen(query, { status, documents, away }) {
  const source = new EventSource(`/api/events?${query}`);
  source.addEventListener("status", (event) => status(JSON.parse(event.data)));
  source.addEventListener("documents", (event) => documents?.(JSON.parse(event.data)));
  let again = 0;
  let ended = false;
  let close = () => source.close();
  source.addEventListener("error", () => {
    away();
    // A proxy's error page ends it for good.
    if (source.readyState === EventSource.CLOSED && !ended) {
      again = setTimeout(() => (close = listen(query, { status, documents, away })), 3000);
    }
  });
  return () => {
    ended = true;
    clearTimeout(again);
    close();
  };
}
