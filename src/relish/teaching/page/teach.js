// The page of `relish teach`: one folder of images, shown and changed by any number of tabs. The server's state is the
// truth; it comes as server-sent events, and every part of the page draws itself from it.
import { connect, onState, post, setSilence } from "./api.js";
import { startClasses, takePasted } from "./classes.js";
import { at, isTyping, make, show, write } from "./dom.js";
import { filesOf, isFiles, stop } from "./intake.js";
import { attempt, say } from "./notes.js";
import { startQuality } from "./quality.js";
import { startReview } from "./review.js";
import { startTake } from "./take.js";
import { startTrial, tryFiles } from "./trial.js";
import { loadWords, t } from "./words.js";

let session = null;

function update(now) {
  if (session !== null && now.session !== session) location.reload(); // the server began anew: so has its token
  session = now.session;
  write(at("folder"), now.name);
  at("folder").title = now.folder;
  document.title = `${now.name} – relish`;
  for (const way of ["undo", "redo"]) {
    at(way).disabled = !now[way];
    at(way).title = now[way] ? t(`${way}.what`, { what: inWords(now[way]) }) : "";
  }
}

const inWords = ({ kind, count, from, to }) => t(`did.${kind}`, { n: count, from, to });

// The answer tells what it was: the state may not have heard yet of the step before.
async function goBack(way) {
  await attempt(async () => {
    const answer = await post(`api/${way}`);
    say(t(`${way}.said`, { what: inWords(answer[way === "undo" ? "undone" : "redone"]) }));
  });
}

function press(event) {
  if (!(event.ctrlKey || event.metaKey) || event.altKey || isTyping(event.target)) return;
  const key = event.key.toLowerCase();
  const way = key === "y" || (key === "z" && event.shiftKey) ? "redo" : key === "z" ? "undo" : null;
  if (!way) return;
  event.preventDefault();
  goBack(way);
}

async function paste(event) {
  if (isTyping(event.target) || !isFiles(event.clipboardData)) return;
  event.preventDefault();
  const trying = document.activeElement.closest("#trial");
  const stamp = new Date().toISOString().replace(/\D/g, "").slice(0, 17);
  const files = (await filesOf(event.clipboardData)).map(({ file, folder }, place) => {
    const name = /^image\.\w+$/.test(file.name) ? `pasted-${stamp}-${place + 1}.${file.name.split(".").at(-1)}` : file.name;
    return { file: new File([file], name, { type: file.type }), folder };
  });
  (trying ? tryFiles : takePasted)(files);
}

// On a telephone one area at a time; elsewhere the same links bring the focus to it.
function openTab(event) {
  const link = event.target.closest("a");
  if (!link) return;
  event.preventDefault();
  document.body.dataset.tab = link.dataset.tab;
  for (const one of at("tabs").children) one.setAttribute("aria-current", String(one === link));
  at(link.hash.slice(1)).focus({ preventScroll: false });
}

function showKeys() {
  const rows = ["undo", "redo", "arrows", "space", "enter", "delete", "move", "decide", "number", "paste"];
  const table = make("dl", {}, ...rows.flatMap((row) => [make("dt", { text: t(`keys.${row}`) }), make("dd", { text: t(`keys.${row}.what`) })]));
  const close = make("button", { type: "button", text: t("close"), on: { click: () => dialog.close() } });
  const dialog = make("dialog", { class: "help", "aria-labelledby": "help-title" }, make("h2", { id: "help-title", text: t("keys") }), table, close);
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

function linked(whether) {
  document.body.classList.toggle("unlinked", !whether);
  write(at("link"), whether ? "" : t("silence"));
  show(at("link"), !whether);
}

async function start() {
  await loadWords();
  setSilence(t("silence"));
  for (const begin of [startClasses, startQuality, startReview, startTrial, startTake]) begin();
  for (const way of ["undo", "redo"]) at(way).addEventListener("click", () => goBack(way));
  at("toast-undo").addEventListener("click", () => (goBack("undo"), at("undo").focus()));
  at("intake-stop").addEventListener("click", stop);
  at("keys").addEventListener("click", showKeys);
  at("tabs").addEventListener("click", openTab);
  document.addEventListener("keydown", press);
  document.addEventListener("paste", paste);
  for (const event of ["dragover", "drop"]) document.addEventListener(event, (missed) => missed.preventDefault()); // or the tab would show the file
  at("tabs").firstElementChild.setAttribute("aria-current", "true");
  onState(update);
  connect(linked);
}

start();
