// Try it: images side by side, or the camera live, each with the probabilities, doubt, and where the model looks.
import { Problem, query, send, state } from "./api.js";
import { Camera } from "./camera.js";
import { at, bar, make, show, write } from "./dom.js";
import { add, filesOf, filesOfInput, isFiles } from "./intake.js";
import { attempt } from "./notes.js";
import { percent, t } from "./words.js";

const MOST_BARS = 5;
const MOST_KEPT = 24; // answers side by side
const LIVE_LONGEST = 480; // pixels of a frame that is asked about
const PAUSE = 120; // milliseconds between an answer and the next frame

const bars = (probabilities) =>
  Object.entries(probabilities)
    .sort((one, other) => other[1] - one[1])
    .slice(0, MOST_BARS)
    .map(([name, share]) => bar(name, share, percent(share, 1)));

const doubts = (row) => [row.unsure && t("trial.unsure"), row.unknown && t("trial.unknown")].filter(Boolean);

export async function tryFiles(files) {
  for (const { file } of files) {
    tell(t("trial.asking", { name: file.name }));
    await attempt(async () => {
      const { predictions } = await send("api/predict", [{ file, name: file.name }]);
      if (predictions[0].error) throw new Problem(`${file.name}: ${predictions[0].error}`);
      addAnswer(file, predictions[0]);
    });
  }
  if (at("trial-said").textContent.endsWith("…")) tell("");
}

// What stands below in its own card is only heard.
function tell(words, answered = false) {
  at("trial-said").classList.toggle("answered", answered);
  write(at("trial-said"), words);
}

function addAnswer(file, row) {
  const address = URL.createObjectURL(file);
  const large = make("img", { src: address, alt: file.name });
  large.addEventListener("error", () => show(large, false)); // an image that the model reads and this browser does not
  const why = make("button", { type: "button", class: "quiet", "aria-pressed": "false", text: t("look.show"), on: { click: () => look() } });
  let overlay = null;
  const look = () =>
    attempt(async () => {
      const on = why.getAttribute("aria-pressed") !== "true";
      if (on) overlay ??= (await send(`api/explain?${query({ class: row.class })}`, [{ file, name: file.name }])).overlay;
      large.src = on ? overlay : address;
      why.setAttribute("aria-pressed", String(on));
    });
  const item = make(
    "li",
    { class: "answer" },
    large,
    make("p", { class: "soft" }, make("bdi", { text: file.name })),
    make("p", { class: "said" }, make("bdi", { text: row.class }), ` ${percent(row.probability)}`),
    ...doubts(row).map((words) => make("p", { class: "unsure", text: words })),
    make("ol", { class: "bars", "aria-label": t("trial.bars") }, ...bars(row.probabilities)),
    make("div", { class: "row" }, why, teachIt(file)),
  );
  item.address = address;
  at("answers").prepend(item);
  while (at("answers").childElementCount > MOST_KEPT) drop(at("answers").lastElementChild);
  show(at("trial-clear"), true);
  tell([t("trial.said", { name: file.name, class: row.class, probability: percent(row.probability) }), ...doubts(row)].join(" "), true);
}

// A wrong answer teaches most: the image goes into the class it belongs to.
function teachIt(file) {
  const classes = state.classes.map(({ name }) => make("option", { value: name, text: name }));
  const select = make("select", { "aria-label": t("trial.teach.label", { name: file.name }) }, make("option", { value: "", text: t("trial.teach") }), ...classes);
  select.addEventListener("change", () => select.value && (add([{ file, folder: "" }], { class: select.value }), (select.value = "")));
  return select;
}

function drop(item) {
  URL.revokeObjectURL(item.address);
  item.remove();
}

function clear() {
  for (const item of [...at("answers").children]) drop(item);
  show(at("trial-clear"), false);
  tell("");
  at("trial-file").focus();
}

// ---- the camera -----------------------------------------------------------------------------------------------------

let camera = null;

async function toggleLive() {
  camera ??= new Camera(at("live-video"), at("live-camera"));
  write(at("live-problem"), "");
  if (camera.on) return end();
  try {
    await camera.start();
  } catch (error) {
    return write(at("live-problem"), error.message);
  }
  show(at("live-box"), true);
  at("live").setAttribute("aria-pressed", "true");
  watch();
}

function end(words = "") {
  camera.stop();
  show(at("live-box"), false);
  at("live").setAttribute("aria-pressed", "false");
  write(at("live-problem"), words);
}

// One frame after the other, as fast as answers come; none while the page is not in sight.
async function watch() {
  while (camera.on) {
    const file = document.hidden ? null : await camera.frame("camera.jpg", LIVE_LONGEST);
    try {
      if (file) drawLive((await send("api/predict", [{ file, name: "camera.jpg" }])).predictions[0]);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (error.status !== 503) return end(error.message);
    }
    await new Promise((go) => setTimeout(go, PAUSE));
  }
}

// The words change with the class alone: a screen reader hears them, and figures change with every frame.
function drawLive(row) {
  if (row.error) return;
  write(at("live-verdict"), [row.class, ...doubts(row)].join(". "));
  at("live-bars").replaceChildren(...bars(row.probabilities));
}

export function startTrial() {
  at("trial-file").addEventListener("change", (event) => tryFiles(filesOfInput(event.target)));
  at("trial-clear").addEventListener("click", clear);
  at("live").addEventListener("click", toggleLive);
  const panel = at("trial");
  panel.addEventListener("dragover", (event) => isFiles(event.dataTransfer) && panel.classList.add("over"));
  panel.addEventListener("dragleave", (event) => !panel.contains(event.relatedTarget) && panel.classList.remove("over"));
  panel.addEventListener("drop", async (event) => {
    event.preventDefault();
    panel.classList.remove("over");
    tryFiles(await filesOf(event.dataTransfer));
  });
}
