// A column's thumbnails as a list box. Only those in sight and a screen beyond are in the document, so 50,000 scroll
// as 50 do. The focus stays on the list, which names its active image: one that scrolls away loses nothing.
import { thumb } from "./api.js";
import { isTyping, make } from "./dom.js";
import { percent, t } from "./words.js";

const NARROWEST = 88; // pixels of a tile
export const DRAGGED = "application/x-relish-images";
let grids = 0;

export class Grid {
  // `chosen`: the ids chosen in every grid. `acts`: { open(place), remove(ids), move(ids), changed() }.
  constructor(label, chosen, acts) {
    this.images = [];
    this.chosen = chosen;
    this.acts = acts;
    this.active = 0;
    this.anchor = 0;
    this.columns = 2;
    this.tiles = new Map();
    this.name = `grid-${++grids}`;
    this.space = make("div", { class: "space", role: "presentation" });
    this.element = make(
      "div",
      {
        class: "grid",
        role: "listbox",
        tabindex: "0",
        "aria-multiselectable": "true",
        "aria-label": label,
        on: {
          scroll: () => this.soon(),
          focus: () => this.render(),
          keydown: (event) => this.press(event),
          click: (event) => this.click(event),
          dblclick: (event) => this.placeOf(event) >= 0 && acts.open(this.placeOf(event)),
          dragstart: (event) => this.drag(event),
        },
      },
      this.space,
    );
    new ResizeObserver(() => this.render()).observe(this.element);
    // Of twenty classes only those in sight ask for thumbnails.
    const sight = new IntersectionObserver((seen) => ((this.inSight = seen.at(-1).isIntersecting), this.render()), { scrollMargin: "160px" });
    sight.observe(this.element);
  }

  set(images) {
    const active = this.images[this.active]?.id;
    this.images = images;
    const place = images.findIndex((image) => image.id === active);
    this.active = place >= 0 ? place : Math.max(0, Math.min(this.active, images.length - 1));
    this.render();
  }

  soon() {
    this.frame ??= requestAnimationFrame(() => ((this.frame = null), this.render()));
  }

  render() {
    const { clientWidth, clientHeight, scrollTop } = this.element;
    if (!clientWidth || !this.inSight) return;
    this.columns = Math.max(2, Math.floor(clientWidth / NARROWEST));
    this.side = clientWidth / this.columns;
    this.space.style.height = `${Math.ceil(this.images.length / this.columns) * this.side}px`;
    const first = Math.max(0, Math.floor((scrollTop - clientHeight) / this.side)) * this.columns;
    const last = Math.min(this.images.length, Math.ceil((scrollTop + 2 * clientHeight) / this.side) * this.columns);
    const wanted = new Map();
    for (let place = first; place < last; place++) wanted.set(this.images[place].id, place);
    if (this.images[this.active]) wanted.set(this.images[this.active].id, this.active);
    for (const [id, tile] of this.tiles) if (!wanted.has(id)) this.forget(id, tile);
    for (const [id, place] of wanted) this.paint(this.tile(id), this.images[place], place);
    const active = this.images[this.active];
    if (active) this.element.setAttribute("aria-activedescendant", `${this.name}-${active.id}`);
    else this.element.removeAttribute("aria-activedescendant");
  }

  // What scrolled past is not waited for: its request would come before those of what is in sight.
  forget(id, tile) {
    tile.firstElementChild.removeAttribute("src");
    tile.remove();
    this.tiles.delete(id);
  }

  tile(id) {
    if (!this.tiles.has(id)) {
      const picture = make("img", { alt: "", src: thumb(id), decoding: "async", draggable: false });
      picture.addEventListener("error", () => tile.classList.add("broken"));
      const tile = make("div", { class: "tile", role: "option", id: `${this.name}-${id}`, draggable: true }, picture);
      tile.append(make("span", { class: "doubt" }), make("span", { class: "aside" }));
      this.tiles.set(id, tile);
      this.space.append(tile);
    }
    return this.tiles.get(id);
  }

  paint(tile, image, place) {
    const { side, columns } = this;
    tile.style.width = tile.style.height = `${side}px`;
    tile.style.transform = `translate(${(place % columns) * side}px, ${Math.floor(place / columns) * side}px)`;
    tile.dataset.place = place;
    tile.setAttribute("aria-posinset", place + 1);
    tile.setAttribute("aria-setsize", this.images.length);
    tile.setAttribute("aria-selected", String(this.chosen.has(image.id)));
    tile.classList.toggle("active", place === this.active);
    const doubted = image.predicted && image.home !== undefined && image.predicted !== image.home;
    const painted = `${image.name}|${doubted ? image.predicted : ""}|${image.probability}|${image.test}|${image.reason ?? ""}`;
    if (tile.dataset.painted === painted) return;
    tile.dataset.painted = painted;
    const told = [image.name];
    if (doubted) told.push(t("image.doubt", { class: image.predicted, probability: percent(image.probability) }));
    if (image.test) told.push(t("image.test"));
    if (image.reason) told.push(image.reason);
    tile.classList.toggle("broken", Boolean(image.reason));
    tile.setAttribute("aria-label", told.join(", "));
    tile.title = told.join("\n");
    tile.children[1].textContent = doubted ? `${image.predicted}?` : "";
    tile.children[2].hidden = !image.test;
  }

  // ---- choosing -----------------------------------------------------------------------------------------------------

  placeOf(event) {
    const tile = event.target.closest(".tile");
    return tile ? Number(tile.dataset.place) : -1;
  }

  click(event) {
    const place = this.placeOf(event);
    if (place < 0) return;
    if (event.shiftKey) this.chooseTo(place);
    else this.toggle(place);
  }

  toggle(place) {
    const { id } = this.images[place];
    if (!this.chosen.delete(id)) this.chosen.add(id);
    this.active = this.anchor = place;
    this.acts.changed();
  }

  chooseTo(place) {
    const [from, to] = [Math.min(this.anchor, place), Math.max(this.anchor, place)];
    for (const { id } of this.images.slice(from, to + 1)) this.chosen.add(id);
    this.active = place;
    this.acts.changed();
  }

  drag(event) {
    const image = this.images[this.placeOf(event)];
    if (!image) return;
    const ids = this.chosen.has(image.id) ? [...this.chosen] : [image.id];
    event.dataTransfer.setData(DRAGGED, JSON.stringify(ids));
    event.dataTransfer.effectAllowed = "move";
  }

  // The chosen images, or else the active one.
  meant() {
    return this.chosen.size ? [...this.chosen] : this.images.slice(this.active, this.active + 1).map(({ id }) => id);
  }

  press(event) {
    if (isTyping(event.target) || event.altKey) return;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns };
    const screen = Math.max(1, Math.floor(this.element.clientHeight / this.side)) * this.columns;
    const leaps = { PageUp: -screen, PageDown: screen, Home: -this.images.length, End: this.images.length };
    const command = event.ctrlKey || event.metaKey;
    if (event.key in steps) this.step(steps[event.key], event.shiftKey);
    else if (event.key in leaps) this.step(leaps[event.key], event.shiftKey);
    else if (event.key === " " && this.images.length) this.toggle(this.active);
    else if (event.key === "Enter" && this.images.length) this.acts.open(this.active);
    else if (command && event.key === "a") this.images.forEach(({ id }) => this.chosen.add(id)), this.acts.changed();
    else if (command) return;
    else if (event.key === "Escape") this.chosen.clear(), this.acts.changed();
    else if (event.key === "Delete" || event.key === "Backspace") this.acts.remove(this.meant());
    else if (event.key.toLowerCase() === "m") this.acts.move(this.meant());
    else return;
    event.preventDefault();
  }

  step(by, extending) {
    const place = Math.max(0, Math.min(this.images.length - 1, this.active + by));
    if (extending) this.chooseTo(place);
    else this.active = this.anchor = place;
    const top = Math.floor(place / this.columns) * this.side;
    const { scrollTop, clientHeight } = this.element;
    if (top < scrollTop) this.element.scrollTop = top;
    else if (top + this.side > scrollTop + clientHeight) this.element.scrollTop = top + this.side - clientHeight;
    this.render();
  }
}
