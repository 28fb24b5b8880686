// The classes as columns of thumbnails, the images without a class, and the removed ones; all that changes them.
import { Problem, get, onState, post, query, state } from "./api.js";
import { cameraBarrier, openCamera } from "./camera.js";
import { at, choose, icon, make, show, write } from "./dom.js";
import { DRAGGED, Grid } from "./grid.js";
import { add, filesOf, filesOfInput, isFiles } from "./intake.js";
import { attempt, complain, say } from "./notes.js";
import { openView } from "./view.js";
import { number, t } from "./words.js";

const AT_ONCE = 5000; // images in one answer
const BETWEEN = 400; // milliseconds between two readings of one list while it keeps changing
const chosen = new Set();
const columns = new Map(); // by key: "class:cat", "tray:unlabelled"
let removedShown = false;
let awaited = null; // the key of a column that is brought into sight once it is there
let recent = null; // the column last used: where pasted images go

// ---- what is done to images -----------------------------------------------------------------------------------------

export async function remove(ids) {
  if (!ids.length) return;
  const from = columns.get("tray:removed")?.grid.images.some(({ id }) => ids.includes(id));
  if (from) return restore(ids);
  if (await attempt(() => post("api/images/remove", { ids }))) say(t("removed.said", { n: ids.length }), { undo: true });
  unchoose(ids);
}

async function restore(ids) {
  if (await attempt(() => post("api/images/restore", { ids }))) say(t("restored.said", { n: ids.length }), { undo: true });
  unchoose(ids);
}

export async function move(ids, to) {
  if (!ids.length) return;
  const target = to ?? (await chooseTarget(t("move.where", { n: ids.length })));
  if (!target) return;
  if (await attempt(() => post("api/images/move", { ids, ...wire(target) })))
    say(t("moved.said", { n: ids.length, to: titleOf(target) }), { undo: true });
  unchoose(ids);
}

const wire = ({ class: to, tray }) => (tray ? { tray } : { to });
const titleOf = ({ class: name, tray }) => name ?? t(`tray.${tray}`);

export async function chooseTarget(title, except = "") {
  const options = state.classes.filter(({ name }) => name !== except).map(({ name }) => ({ value: { class: name }, label: name }));
  if (except === "") options.push({ value: { tray: "unlabelled" }, label: t("tray.unlabelled") });
  return choose(title, options, t("cancel"));
}

function unchoose(ids) {
  for (const id of ids) chosen.delete(id);
  changed();
}

function changed() {
  for (const column of columns.values()) column.grid.render();
  show(at("chosen"), chosen.size > 0);
  write(at("chosen-count"), chosen.size ? t("chosen.count", { n: chosen.size }) : "");
  const inRemoved = columns.get("tray:removed")?.grid.images.some(({ id }) => chosen.has(id));
  write(at("chosen-remove-words"), t(inRemoved ? "restore.one" : "remove.one"));
}

// ---- a column -------------------------------------------------------------------------------------------------------

class Column {
  // `target`: { class } or { tray }.
  constructor(target) {
    this.target = target;
    this.stamp = null;
    const acts = {
      open: (place) => openView(this.grid.images, place, target.tray === "removed" ? null : { move, remove }),
      remove,
      move,
      changed,
    };
    this.title = make("bdi", { text: titleOf(target) });
    this.count = make("span", { class: "count" });
    this.note = make("p", { class: "soft note" });
    this.grid = new Grid(t("column.images", { class: titleOf(target) }), chosen, acts);
    this.hint = make("p", { class: "soft hint", text: t(target.tray === "removed" ? "removed.none" : "column.empty") });
    this.menu = make("div", { class: "menu", hidden: true });
    this.element = make(
      "div",
      { class: `column${target.tray ? " tray" : ""}`, role: "group", "aria-label": titleOf(target) },
      make("div", { class: "name" }, make("h3", {}, this.title), this.count),
      ...(target.tray === "removed" ? [] : [this.tools(), this.menu]),
      this.note,
      this.grid.element,
      this.hint,
    );
    this.element.addEventListener("focusin", () => (recent = this));
    this.element.addEventListener("pointerdown", () => (recent = this));
    this.acceptDrops();
  }

  tools() {
    this.files = this.input({ multiple: true, accept: "image/*,.zip,.heic,.heif,.tif,.tiff" });
    this.folder = this.input({ webkitdirectory: true });
    const name = titleOf(this.target);
    const button = (text, kind, act, label) =>
      make("button", { type: "button", "aria-label": label, title: label, on: { click: act } }, icon(kind), ...(text ? [make("span", { text })] : []));
    const more = button("", "more", () => this.showMenu(this.menu.hidden), t("column.more", { class: name }));
    more.setAttribute("aria-expanded", "false");
    this.more = more;
    this.fillMenu();
    return make(
      "div",
      { class: "row tools" },
      button(t("column.add"), "add", () => this.files.click(), t("column.add.label", { class: name })),
      button("", "camera", () => this.shoot(), t("column.camera", { class: name })),
      more,
      this.files,
      this.folder,
    );
  }

  input(properties) {
    const chosenFiles = (event) => add(filesOfInput(event.target), this.target);
    return make("input", { type: "file", hidden: true, ...properties, on: { change: chosenFiles } });
  }

  showMenu(whether) {
    show(this.menu, whether);
    this.more.setAttribute("aria-expanded", String(whether));
    (whether ? this.menu.querySelector("button") : this.more).focus();
  }

  fillMenu() {
    const entries = [["column.folder", () => this.folder.click()]];
    if (this.target.class)
      entries.push(["column.rename", () => this.rename()], ["column.merge", () => this.merge()], ["column.delete", () => this.delete()]);
    const chose = (act) => () => (this.showMenu(false), act());
    this.menu.append(...entries.map(([key, act]) => make("button", { type: "button", text: t(key), on: { click: chose(act) } })));
    this.menu.addEventListener("keydown", (event) => event.key === "Escape" && this.showMenu(false));
  }

  shoot() {
    if (cameraBarrier()) return complain(cameraBarrier());
    openCamera(t("column.camera", { class: titleOf(this.target) }), (file) => add([{ file, folder: "" }], this.target));
  }

  rename() {
    const { class: name } = this.target;
    const field = make("input", { value: name, maxlength: "100", "aria-label": t("column.rename.label", { class: name }) });
    const form = make("form", { class: "row" }, field, make("button", { text: t("column.rename.save") }));
    const end = () => form.replaceWith(this.menu);
    form.addEventListener("keydown", (event) => event.key === "Escape" && (end(), this.grid.element.focus()));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const done = await attempt(async () => {
        const { name: made } = await post("api/classes/rename", { name, to: field.value });
        this.become(made);
        end();
        say(t("renamed.said", { from: name, to: made }), { undo: true });
        this.grid.element.focus();
      });
      if (!done) field.focus();
    });
    this.menu.replaceWith(form);
    field.focus();
    field.select();
  }

  // The same column under its new name, so that it keeps its place on the screen and the focus.
  become(name) {
    columns.delete(`class:${this.target.class}`);
    const fresh = new Column({ class: name });
    fresh.stamp = null;
    columns.set(`class:${name}`, fresh);
    this.element.replaceWith(fresh.element);
    fresh.update(this.known);
    fresh.grid.element.focus();
  }

  async merge() {
    const { class: name } = this.target;
    const into = await chooseTarget(t("merge.where", { class: name }), name);
    if (!into) return;
    if (await attempt(() => post("api/classes/merge", { name, into: into.class })))
      say(t("merged.said", { class: name, into: into.class }), { undo: true });
  }

  async delete() {
    const { class: name } = this.target;
    if (await attempt(() => post("api/classes/delete", { name })))
      say(t("deleted.said", { class: name, n: this.known.count }), { undo: true });
    at("create-name").focus();
  }

  acceptDrops() {
    const over = (whether) => this.element.classList.toggle("over", whether);
    this.element.addEventListener("dragover", (event) => {
      event.preventDefault();
      event.stopPropagation();
      over(true);
    });
    this.element.addEventListener("dragleave", (event) => !this.element.contains(event.relatedTarget) && over(false));
    this.element.addEventListener("drop", async (event) => {
      event.preventDefault();
      event.stopPropagation();
      over(false);
      const ids = event.dataTransfer.getData(DRAGGED);
      if (ids && this.target.tray === "removed") await remove(JSON.parse(ids));
      else if (ids) await move(JSON.parse(ids), this.target);
      else if (this.target.tray !== "removed") add(await filesOf(event.dataTransfer), this.target);
    });
  }

  // ---- as the state says -------------------------------------------------------------------------------------------

  update(known) {
    this.known = known;
    write(this.count, number(known.count));
    this.count.title = t("column.count", { n: known.count });
    show(this.hint, known.count === 0);
    const learning = state.learning;
    const needs = learning.needs.find((one) => one.class === this.target.class);
    const figure = learning.per_class?.find((one) => one.class === this.target.class);
    const right = figure ? t("column.right", { right: figure.right, n: figure.of }) : "";
    write(this.note, needs && this.target.class ? t("column.needs", { n: needs.more }) : right);
    if (known.stamp !== this.stamp) this.refresh(known.stamp);
  }

  async refresh(stamp) {
    if (this.reading) return;
    this.reading = true;
    this.stamp = stamp;
    try {
      this.grid.set(await this.read());
      changed();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.stamp = null; // the class went, or the server: the next state tells
    }
    await new Promise((go) => setTimeout(go, BETWEEN));
    this.reading = false;
    if (this.known.stamp !== this.stamp && this.stamp !== null) this.refresh(this.known.stamp);
  }

  async read() {
    const images = [];
    for (let total = 1; images.length < total; ) {
      const some = await get(`api/images?${query({ ...this.target, offset: images.length, limit: AT_ONCE })}`);
      images.push(...some.images.map((image) => ({ ...image, home: this.target.class })));
      if (!some.images.length) break;
      total = some.total;
    }
    return images;
  }
}

// ---- all columns ----------------------------------------------------------------------------------------------------

function update(now) {
  const wanted = now.classes.map((one) => [`class:${one.name}`, { class: one.name }, one]);
  if (now.unlabelled.count) wanted.push(["tray:unlabelled", { tray: "unlabelled" }, now.unlabelled]);
  if (removedShown && now.removed.count) wanted.push(["tray:removed", { tray: "removed" }, now.removed]);
  const keys = new Set(wanted.map(([key]) => key));
  for (const [key, column] of columns) if (!keys.has(key)) (column.element.remove(), columns.delete(key));
  let following = at("columns").firstElementChild;
  for (const [key, target, known] of wanted) {
    if (!columns.has(key)) columns.set(key, new Column(target));
    const { element } = columns.get(key);
    if (element === following) following = following.nextElementSibling;
    else at("columns").insertBefore(element, following);
    columns.get(key).update(known);
  }
  bringIntoSight();
  forgetGone();
  show(at("welcome"), now.classes.length === 0 && now.unlabelled.count === 0);
  show(at("removed"), now.removed.count > 0);
  at("removed").setAttribute("aria-expanded", String(removedShown && now.removed.count > 0));
  write(at("removed"), t(removedShown ? "removed.hide" : "removed.show", { n: now.removed.count }));
  const kept = now.classes.reduce((sum, { test }) => sum + test, 0);
  write(at("kept"), kept ? t("kept", { n: kept }) : "");
}

function bringIntoSight() {
  const column = columns.get(awaited);
  if (!column) return;
  awaited = null;
  column.element.scrollIntoView({ inline: "nearest", block: "nearest" });
}

// An id that moved is another one: only what is still in some column stays chosen.
function forgetGone() {
  if (!chosen.size || [...columns.values()].some(({ reading }) => reading)) return;
  const there = new Set([...columns.values()].flatMap(({ grid }) => grid.images.map(({ id }) => id)));
  for (const id of chosen) if (!there.has(id)) chosen.delete(id);
  changed();
}

async function create(event) {
  event.preventDefault();
  const field = at("create-name");
  await attempt(async () => {
    const { name } = await post("api/classes/create", { name: field.value });
    field.value = "";
    awaited = `class:${name}`;
    update(state);
    say(t("created.said", { class: name }));
  });
  field.focus();
}

// Files dropped or pasted where no column is: folders become classes.
export const takeLoose = (files) => add(files, null);
export const takePasted = (files) => add(files, recent?.element.isConnected && recent.target.tray !== "removed" ? recent.target : null);

export function startClasses() {
  at("create").addEventListener("submit", create);
  at("loose").addEventListener("change", (event) => add(filesOfInput(event.target), null));
  at("removed").addEventListener("click", () => ((removedShown = !removedShown), (awaited = removedShown ? "tray:removed" : null), update(state)));
  at("chosen-move").addEventListener("click", () => move([...chosen]));
  at("chosen-remove").addEventListener("click", () => remove([...chosen]));
  at("chosen-none").addEventListener("click", () => unchoose([...chosen]));
  const panel = at("classes");
  panel.addEventListener("dragover", (event) => isFiles(event.dataTransfer) && panel.classList.add("over"));
  panel.addEventListener("dragleave", (event) => !panel.contains(event.relatedTarget) && panel.classList.remove("over"));
  panel.addEventListener("drop", async (event) => {
    event.preventDefault();
    panel.classList.remove("over");
    if (isFiles(event.dataTransfer)) takeLoose(await filesOf(event.dataTransfer));
  });
  onState(update);
}
