// The server this page came from: requests with the page's own token, and its state as it changes.

export const ROOT = new URL("../", import.meta.url).href; // wherever a proxy has put the server
const TOKEN = document.querySelector("meta[name=relish-token]").content;

export class Problem extends Error {
  constructor(words, status = 0) {
    super(words);
    this.status = status;
  }
}

// What the server answers; refusals and silence are a `Problem` in words. `silence` are the words for no answer.
async function ask(path, options, silence) {
  let response;
  try {
    response = await fetch(ROOT + path, options);
  } catch {
    throw new Problem(silence);
  }
  const found = await response.json().catch(() => null);
  if (response.ok && found) return found;
  const { reason = `${response.status}`, hint = "" } = found?.error ?? {};
  const problem = new Problem(`${/[.!?]$/.test(reason) ? reason : `${reason}.`} ${hint}`.trim(), response.status);
  problem.again = Number(response.headers.get("retry-after") ?? 0);
  throw problem;
}

export let silence = "";
export const setSilence = (words) => (silence = words);

export const get = (path) => ask(path, {}, silence);

export const post = (path, body = {}) =>
  ask(
    path,
    {
      method: "POST",
      headers: { "X-Relish-Token": TOKEN, "Content-Type": "application/json" },
      body: JSON.stringify(body),
    },
    silence,
  );

// Files as [{ file, name }]: their bytes are sent under these names.
export function send(path, files) {
  const body = new FormData();
  for (const { file, name } of files) body.append("files", file, name);
  return ask(path, { method: "POST", headers: { "X-Relish-Token": TOKEN }, body }, silence);
}

export const thumb = (id, size = 160) => `${ROOT}api/thumb/${encodeURIComponent(id)}?size=${size}`;
export const picture = (id) => `${ROOT}api/image/${encodeURIComponent(id)}`;
export const query = (words) => new URLSearchParams(words).toString();

// ---- the state, in step with every other tab --------------------------------------------------------------------

const listeners = [];
export let state = null;

export function onState(heard) {
  listeners.push(heard);
  if (state) heard(state);
}

// `link(true)` when the server speaks, `link(false)` when it does not; the browser connects again by itself.
export function connect(link) {
  const source = new EventSource(`${ROOT}api/events`);
  source.addEventListener("state", (event) => {
    state = JSON.parse(event.data);
    link(true);
    for (const heard of listeners) heard(state);
  });
  source.addEventListener("bye", () => link(false));
  source.addEventListener("error", () => {
    link(false);
    if (source.readyState === EventSource.CLOSED) setTimeout(() => connect(link), 2000);
  });
  source.addEventListener("open", () => link(true));
}
