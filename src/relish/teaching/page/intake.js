// Files on their way to the server: dropped, chosen, pasted or taken. What is there already is not sent again, so
// dropping the same once more goes on where an interrupted upload stopped.
import { Problem, post, query, send, state } from "./api.js";
import { at, make, show, write } from "./dom.js";
import { say } from "./notes.js";
import { number, t } from "./words.js";

const TOGETHER = 8; // files in one request: few enough to show progress
const ASKED = 64; // files whose content is asked for at once
const HASHED = 200e6; // bytes; a larger file is sent without asking, its content would have to fit into memory
const RETRIES = 8;
const NOT_IMAGES = /^(\..*|thumbs\.db|desktop\.ini)$/i;

const waiting = []; // { file, name, target }
let [total, done, working, stopped] = [0, 0, false, false];
let batch = ""; // names one drop: all of it is one step of undo
let result = emptyResult();

function emptyResult() {
  return { added: 0, there: 0, refused: [], elsewhere: new Map() };
}

const isZip = (file) => /\.zip$/i.test(file.name);
export const isFiles = (transfer) => [...(transfer?.types ?? [])].includes("Files");

// ---- what was dropped -----------------------------------------------------------------------------------------------

// Every file of a drop or paste as { file, folder }: `folder` is the name of the one it lies in, "" for none. It has
// to be called while the event lasts: afterwards the browser takes the list away.
export function filesOf(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const roots = items.map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  return Promise.all(roots.map((root) => walk(root, ""))).then((lists) => lists.flat());
}

async function walk(entry, folder) {
  if (entry instanceof File) return [{ file: entry, folder }];
  if (entry.isFile) return [{ file: await new Promise((take, fail) => entry.file(take, fail)), folder }];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((take, fail) => reader.readEntries(take, fail)); // a hundred at a time
    if (!some.length) break;
    found.push(...some);
  }
  return (await Promise.all(found.map((one) => walk(one, entry.name)))).flat();
}

// The files of an <input>, which names folders in `webkitRelativePath`.
export function filesOfInput(input) {
  const files = [...input.files].map((file) => ({ file, folder: file.webkitRelativePath.split("/").at(-2) ?? "" }));
  input.value = "";
  return files;
}

// ---- sending --------------------------------------------------------------------------------------------------------

// `target`: { class } or { tray }; null lets folders be classes, and what lies in none have no class yet.
export function add(files, target) {
  for (const { file, folder } of files) {
    if (NOT_IMAGES.test(file.name)) continue;
    const own = folder ? { class: folder } : isZip(file) ? {} : { tray: "unlabelled" };
    waiting.push({ file, name: file.name, target: target ?? own });
    total += 1;
  }
  if (!working && waiting.length) work();
  else progress();
}

async function work() {
  working = true;
  stopped = false;
  batch = `${Date.now()}-${Math.random()}`;
  try {
    while (waiting.length && !stopped) {
      const key = query(waiting[0].target);
      const count = waiting.slice(0, ASKED).findIndex(({ target }) => query(target) !== key);
      await sendSome(waiting.splice(0, count < 0 ? ASKED : count));
    }
    conclude();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    conclude(error.message);
  } finally {
    waiting.length = total = done = 0;
    working = false;
    result = emptyResult();
    progress();
  }
}

async function sendSome(files) {
  progress();
  const unknown = await leaveOutKnown(files);
  for (let rest = unknown; rest.length && !stopped; ) {
    const some = fitting(rest);
    rest = rest.slice(some.length);
    await sendBatch(some);
    done += some.length;
    progress();
  }
}

async function leaveOutKnown(files) {
  const digests = await Promise.all(files.map(({ file }) => digest(file)));
  const { known } = await post("api/known", { sha256: digests.filter(Boolean) });
  const unknown = files.filter((_, place) => !known[digests[place]]);
  files.forEach(({ name, target }, place) => {
    const found = known[digests[place]];
    if (found) count({ name, status: "there", id: found.id, class: found.class }, target);
  });
  done += files.length - unknown.length;
  return unknown;
}

// Undefined where the browser has no digests: without HTTPS on another computer.
async function digest(file) {
  if (!crypto.subtle || file.size > HASHED || isZip(file)) return undefined;
  try {
    const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", await file.arrayBuffer()));
    return Array.from(sum, (byte) => byte.toString(16).padStart(2, "0")).join("");
  } catch {
    return undefined; // the file went away: sending it says so
  }
}

function fitting(files) {
  const most = state?.limits.body_bytes ?? 1e8;
  let [size, taken] = [0, 0];
  for (const { file } of files.slice(0, Math.min(TOGETHER, state?.limits.files ?? TOGETHER))) {
    size += file.size + 1000; // its part of the form has a header
    if (taken && (size > most || isZip(file))) break;
    taken += 1;
    if (isZip(file)) break;
  }
  return files.slice(0, taken);
}

async function sendBatch(some) {
  const [{ target, file, name }] = some;
  const most = state?.limits.body_bytes ?? Infinity;
  if (some.length === 1 && file.size > most)
    return refuse(name, t("intake.large", { size: file.size / 1e6, most: most / 1e6 }));
  for (let tried = 0; ; tried++) {
    try {
      const { results } = await send(`api/upload?${query({ ...target, batch })}`, some);
      return results.forEach((one) => count(one, target));
    } catch (error) {
      if (error.status === 503 && tried < RETRIES) await new Promise((go) => setTimeout(go, 1000 * (error.again || 1)));
      else if (some.length > 1 && [413, 422].includes(error.status)) return eachAlone(some);
      else if ([400, 413, 415, 422].includes(error.status)) return refuse(name, error.message);
      else throw error;
    }
  }
}

async function eachAlone(some) {
  for (const one of some) await sendBatch([one]);
}

function count({ name, status, id, class: found, reason }, target) {
  if (status === "refused") return refuse(name, reason);
  result[status] += 1;
  if (status === "there" && target.class && found && found !== target.class) {
    const ids = result.elsewhere.get(target.class) ?? [];
    result.elsewhere.set(target.class, [...ids, id]);
  }
}

function refuse(name, reason) {
  result.refused.push({ name, reason });
}

export function stop() {
  stopped = true;
}

// ---- what the user hears of it --------------------------------------------------------------------------------------

function progress() {
  const words = working ? t("intake.progress.words", { n: total, done }) : "";
  at("intake-progress").value = total ? done / total : 0;
  for (const id of ["intake-progress", "intake-stop"]) show(at(id), working);
  write(at("intake-words"), words);
  show(at("intake"), working || at("intake-report").childElementCount > 0);
}

function conclude(problem = "") {
  const { added, there, refused, elsewhere } = result;
  const words = [t("intake.added", { n: added })];
  if (there) words.push(t("intake.there", { n: there }));
  if (refused.length) words.push(t("intake.refused", { n: refused.length }));
  if (stopped || problem) words.push(`${t("intake.unsent", { n: total - done })} ${problem}`.trim());
  const bad = refused.map(({ name, reason }) =>
    make("li", {}, make("bdi", { class: "strong", text: name }), `: ${reason.replace(`${name}: `, "")}`),
  );
  const moves = [...elsewhere].map(([name, ids]) => {
    const move = () => post("api/images/move", { ids, to: name }).then(clear, (error) => say(error.message));
    return make("button", { type: "button", text: t("intake.move", { n: ids.length, class: name }), on: { click: move } });
  });
  say(words.join(" "), { undo: added > 0 });
  const worth = refused.length || moves.length || problem;
  const report = [
    make("p", { class: problem ? "problem" : "", text: words.join(" ") }),
    make("ul", { class: "refused", tabindex: "0", "aria-label": t("intake.bad") }, ...bad.slice(0, 200)),
    ...(bad.length > 200 ? [make("p", { class: "soft", text: t("intake.rest", { count: number(bad.length - 200) }) })] : []),
    ...moves,
    make("button", { type: "button", class: "quiet", text: t("close"), on: { click: clear } }),
  ];
  at("intake-report").replaceChildren(...(worth ? report.filter((part) => part.tagName !== "UL" || bad.length) : []));
}

function clear() {
  at("intake-report").replaceChildren();
  progress();
}
