// What to look at next: the surest mistakes, doubtful labels, near copies and odd images, one at a time and one key
// each; and the images without a class, each with a proposal. What was decided is gone at once, and back with undo.
import { Problem, get, onState, post, state, thumb } from "./api.js";
import { chooseTarget, move, remove } from "./classes.js";
import { at, isTyping, make, show, write } from "./dom.js";
import { attempt, say } from "./notes.js";
import { percent, t } from "./words.js";

const LIMIT = 50;
const AHEAD = 6; // small pictures of what follows
const lists = { check: { items: [], stamp: null }, sort: { items: [], stamp: null } };
const pending = new Set(); // decided here, and not yet left out by the server
let mode = "check";
let current = null;

const keyOf = (item) => item.key ?? item.id;
const waitingItems = () => lists[mode].items.filter((item) => !pending.has(keyOf(item)));

async function read(which) {
  const path = { check: "api/queue", sort: "api/unlabelled" }[which];
  const answer = await get(`${path}?limit=${LIMIT}`);
  lists[which].items = answer.items;
  draw();
}

// What cannot be read now is read at the next change; whoever decides something hears of a server that is gone.
const refresh = (which) => read(which).catch((error) => assertProblem(error));

function assertProblem(error) {
  if (!(error instanceof Problem)) throw error;
}

function update(now) {
  const stamps = { check: now.queue.stamp, sort: `${now.unlabelled.stamp} ${now.learning.revision}` };
  const totals = { check: now.queue.count, sort: now.unlabelled.count };
  write(at("next-check"), t("next.check", { n: totals.check }));
  write(at("next-sort"), t("next.sort", { n: totals.sort }));
  show(at("next-tabs"), totals.sort > 0);
  if (mode === "sort" && !totals.sort) choose("check");
  for (const which of ["check", "sort"]) {
    if (lists[which].stamp === stamps[which]) continue;
    lists[which].stamp = stamps[which];
    if (totals[which] || lists[which].items.length) refresh(which);
  }
  draw();
}

function choose(which) {
  mode = which;
  current = null;
  at("next-check").setAttribute("aria-pressed", String(which === "check"));
  at("next-sort").setAttribute("aria-pressed", String(which === "sort"));
  draw();
}

// The image in hand stays while it is still asked about, whatever arrives before it.
function draw() {
  const items = waitingItems();
  current = items.find((item) => keyOf(item) === current) ? current : items.length ? keyOf(items[0]) : null;
  const item = items.find((one) => keyOf(one) === current);
  show(at("card"), Boolean(item));
  show(at("next-none"), !item);
  write(at("next-none"), item ? "" : t(state?.learning.accuracy ? "next.none" : "next.later"));
  if (!item) return;
  drawPicture("card-picture", "card-name", item.id, item.name);
  show(at("card-other"), Boolean(item.other));
  if (item.other) drawPicture("card-other-picture", "card-other-name", item.other, t("next.in", { class: item.other_class }));
  write(at("card-words"), claim(item));
  show(at("card-test"), Boolean(item.test));
  drawMove(item);
  write(at("card-keep").firstElementChild, t(mode === "sort" ? "next.later.key" : item.kind === "copy" ? "next.keep.both" : "next.keep"));
  const following = items.filter((one) => one !== item).slice(0, AHEAD);
  at("upcoming").replaceChildren(...following.map(({ id }) => make("li", {}, make("img", { alt: "", src: thumb(id, 96) }))));
}

function drawPicture(id, nameId, image, name) {
  const source = thumb(image, 320);
  if (at(id).getAttribute("src") !== source) at(id).src = source;
  at(id).alt = name;
  write(at(nameId), name);
}

function drawMove(item) {
  const to = targetOf(item);
  show(at("card-move"), Boolean(to));
  if (to) write(at("card-move").firstElementChild, t(mode === "sort" ? "next.yes" : "next.move", { to }));
}

const targetOf = (item) => (mode === "sort" ? item.proposed : item.suggested !== item.class ? item.suggested : null);

function claim(item) {
  const values = { class: item.class ?? "", to: targetOf(item) ?? "", other: item.other_class ?? "" };
  const probability = item.probability == null ? "" : percent(item.probability);
  if (mode === "sort") return t(item.proposed ? "claim.proposed" : "claim.open", { ...values, probability });
  if (item.kind === "copy") return t(item.class === item.other_class ? "claim.copy" : "claim.copy.apart", values);
  return t(`claim.${item.kind}`, { ...values, probability });
}

// ---- deciding -------------------------------------------------------------------------------------------------------

// Gone at once; back where the server refuses.
async function decide(act) {
  const item = waitingItems().find((one) => keyOf(one) === current);
  if (!item) return;
  const [which, key, place] = [mode, keyOf(item), waitingItems().indexOf(item)];
  pending.add(key);
  current = keyOf(waitingItems()[place] ?? waitingItems()[0] ?? {}) ?? null;
  draw();
  await act(item);
  await refresh(which);
  pending.delete(key);
  draw();
}

const acts = {
  m: () => targetOf(waitingItems().find((one) => keyOf(one) === current) ?? {}) && decide((item) => move([item.id], { class: item.proposed ?? item.suggested })),
  r: () => decide((item) => remove([item.id])),
  k: () => (mode === "sort" ? acts.s() : decide(keep)),
  o: async () => {
    const target = await chooseTarget(t("move.where", { n: 1 }));
    if (target) decide((item) => move([item.id], target));
  },
  s: () => {
    const items = waitingItems();
    const place = items.findIndex((item) => keyOf(item) === current);
    current = items.length ? keyOf(items[(place + 1) % items.length]) : null;
    draw();
  },
};

async function keep({ key }) {
  if (await attempt(() => post("api/queue/keep", { keys: [key] }))) say(t("kept.said"), { undo: true });
}

function press(event) {
  if (isTyping(event.target) || event.ctrlKey || event.metaKey || event.altKey || at("card").hidden) return;
  const act = acts[{ delete: "r", backspace: "r" }[event.key.toLowerCase()] ?? event.key.toLowerCase()];
  const place = /^[1-9]$/.test(event.key) ? state.classes[event.key - 1] : null;
  if (place) decide((item) => move([item.id], { class: place.name }));
  else if (act) act();
  else return;
  event.preventDefault();
}

export function startReview() {
  at("next").addEventListener("keydown", press);
  for (const [id, key] of [["move", "m"], ["keep", "k"], ["remove", "r"], ["else", "o"], ["skip", "s"]])
    at(`card-${id}`).addEventListener("click", () => acts[key]());
  at("next-check").addEventListener("click", () => choose("check"));
  at("next-sort").addEventListener("click", () => choose("sort"));
  onState(update);
}
