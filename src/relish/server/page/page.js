// Send pictures to the server this page came from, and show what it says. Nothing is stored; every word that came
// from elsewhere is put in as text, never as HTML.
"use strict";

const MOST_BARS = 10;
const MOST_KEPT = 50;
const THUMBNAIL = 320;
const ROOT = new URL("..", document.currentScript.src).href; // wherever a proxy has put the server
const at = (id) => document.getElementById(id);
const kept = [];
let known = null;
let token = "";
let shown = null;

class Problem extends Error {}

// Nothing is certain: what only rounds to 0 or 100 is not called so.
function percent(share) {
  if (share > 0.9995 && share < 1) return "over 99.9%";
  if (share < 0.0005 && share > 0) return "below 0.1%";
  return `${(100 * share).toFixed(1)}%`;
}

async function ask(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let response;
  try {
    response = await fetch(ROOT + path, { ...options, headers });
  } catch {
    throw new Problem("The server does not answer. Is it still running?");
  }
  const found = await response.json().catch(() => null);
  if (response.ok && found) return found;
  if (response.status === 401) askForToken();
  const error = found && found.error;
  throw new Problem(error ? `${sentence(error.reason)} ${error.hint}`.trim() : `The server says ${response.status}.`);
}

function sentence(words) {
  return /[.!?]$/.test(words) ? words : `${words}.`;
}

async function meet() {
  try {
    known = await ask("classes");
  } catch (error) {
    at("about").textContent = "";
    complain(error.message);
    return;
  }
  at("key").hidden = true;
  at("problem").hidden = true;
  const names = known.classes.slice(0, 6).join(", ") + (known.classes.length > 6 ? ", …" : "");
  at("about").textContent = `${known.model} knows ${known.classes.length} classes: ${names}.`;
  const { body_bytes, pixels } = known.limits;
  at("takes").textContent =
    `Up to ${+(body_bytes / 1e6).toFixed(1)} MB and ${+(pixels / 1e6).toFixed(1)} megapixels. ` +
    "It goes to this server and nowhere else, and is not kept.";
}

function askForToken() {
  at("key").hidden = false;
  at("token").focus();
}

function complain(words) {
  at("said").textContent = "";
  at("problem").textContent = words;
  at("problem").hidden = false;
}

async function take(files) {
  for (const file of files) await tell(file);
}

async function tell(file) {
  at("problem").hidden = true;
  at("said").textContent = `Looking at ${file.name} …`;
  try {
    if (known && file.size > known.limits.body_bytes) {
      const [has, most] = [file.size, known.limits.body_bytes].map((count) => `${+(count / 1e6).toFixed(1)} MB`);
      throw new Problem(`${file.name} has ${has}; the server takes ${most}. Send a smaller copy.`);
    }
    const form = new FormData();
    form.append("files", file, file.name);
    const { predictions } = await ask("predict", { method: "POST", body: form });
    const entry = { file, row: predictions[0], url: URL.createObjectURL(file), overlay: null };
    remember(entry);
    show(entry);
    announce(entry.row);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    complain(error.message);
  }
}

function announce(row) {
  const doubt = row.unsure ? " The model is unsure." : "";
  const strange = row.unknown ? " It is unlike anything the model learned from." : "";
  at("said").textContent = `${row.path}: ${row.class}, ${percent(row.probability)}.${doubt}${strange}`;
}

function show(entry) {
  const { row } = entry;
  shown = entry;
  at("answer").hidden = false;
  at("name").textContent = row.path;
  at("class").textContent = row.class;
  at("probability").textContent = percent(row.probability);
  at("unsure").hidden = !row.unsure;
  at("unknown").hidden = !row.unknown;
  at("why").hidden = !(known && known.explains);
  look(false);
  const ranked = Object.entries(row.probabilities).sort((a, b) => b[1] - a[1]);
  at("bars").replaceChildren(...ranked.slice(0, MOST_BARS).map(([name, share]) => bar(name, share)));
  const more = ranked.length - MOST_BARS;
  at("rest").textContent = more > 0 ? `${more} more classes, each less probable than these.` : "";
}

function bar(name, share) {
  const line = element("div", "line");
  const called = element("span");
  const quoted = element("bdi");
  quoted.textContent = name;
  called.append(quoted);
  const number = element("span");
  number.textContent = percent(share);
  line.append(called, number);
  const track = element("div", "track");
  track.setAttribute("aria-hidden", "true");
  const filled = element("i");
  filled.style.width = `${100 * share}%`;
  track.append(filled);
  const item = element("li");
  item.append(line, track);
  return item;
}

function look(overlaid) {
  at("why").setAttribute("aria-pressed", String(overlaid));
  at("picture").src = overlaid ? shown.overlay : shown.url;
  at("picture").alt = overlaid
    ? `The picture as the model saw it, with what speaks for ${shown.row.class} lit up`
    : `The picture ${shown.row.path}`;
}

async function explain() {
  const entry = shown;
  if (at("why").getAttribute("aria-pressed") === "true") return look(false);
  try {
    if (!entry.overlay) {
      at("said").textContent = "Asking where the model looks …";
      const form = new FormData();
      form.append("files", entry.file, entry.file.name);
      const path = `explain?class_name=${encodeURIComponent(entry.row.class)}`;
      entry.overlay = (await ask(path, { method: "POST", body: form })).overlay;
    }
    if (entry !== shown) return;
    look(true);
    at("said").textContent = `Lit up: what speaks for ${entry.row.class}.`;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    complain(error.message);
  }
}

async function remember(entry) {
  kept.unshift(entry);
  for (const old of kept.splice(MOST_KEPT)) letGo(old);
  entry.thumbnail = await thumbnail(entry.file);
  list();
}

// A small copy, so that fifty photographs of a phone are not decoded side by side.
async function thumbnail(file) {
  try {
    const bitmap = await createImageBitmap(file);
    const scale = Math.min(1, THUMBNAIL / Math.max(bitmap.width, bitmap.height));
    const canvas = element("canvas");
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
    return canvas.toDataURL("image/jpeg", 0.8);
  } catch {
    return `${ROOT}static/icon.svg`; // a picture that the model reads and this browser does not, such as TIFF
  }
}

function list() {
  at("before").hidden = kept.length === 0;
  at("history").replaceChildren(...kept.map(remembered));
}

function remembered(entry) {
  const button = element("button");
  button.type = "button";
  const picture = element("img");
  picture.src = entry.thumbnail || `${ROOT}static/icon.svg`;
  picture.alt = "";
  const said = element("span");
  const doubts = (entry.row.unsure ? " (unsure)" : "") + (entry.row.unknown ? " (unlike what it learned)" : "");
  said.textContent = `${entry.row.class}, ${percent(entry.row.probability)}${doubts}`;
  const name = element("span", "soft");
  name.textContent = entry.row.path;
  button.append(picture, said, name);
  button.addEventListener("click", () => {
    at("problem").hidden = true;
    show(entry);
    announce(entry.row);
    at("answer").scrollIntoView({ block: "start" });
  });
  const item = element("li");
  item.append(button);
  return item;
}

function letGo(entry) {
  if (entry !== shown) URL.revokeObjectURL(entry.url);
}

function element(kind, named = "") {
  const made = document.createElement(kind);
  if (named) made.className = named;
  return made;
}

at("file").addEventListener("change", () => {
  take([...at("file").files]);
  at("file").value = "";
});
at("why").addEventListener("click", explain);
at("forget").addEventListener("click", () => {
  shown = null;
  kept.splice(0).forEach(letGo);
  list();
  at("answer").hidden = true;
  at("said").textContent = "Forgotten.";
  at("file").focus();
});
at("key").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value.trim();
  at("token").value = "";
  meet();
});
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) at("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  take([...event.dataTransfer.files]);
});
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (files.length) take(files);
});
meet();
