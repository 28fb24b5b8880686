// One image large, in a dialog: what is known of it, where the model looks, the images beside it.
import { get, picture, query } from "./api.js";
import { make, show, write } from "./dom.js";
import { attempt } from "./notes.js";
import { percent, t } from "./words.js";

// `acts`: { remove(ids), move(ids) }; null hides what changes the image.
export function openView(images, place, acts) {
  const large = make("img", { alt: "" });
  const name = make("bdi");
  const words = make("p", { role: "status" });
  const button = (text, act, rest = {}) => make("button", { type: "button", text, on: { click: act }, ...rest });
  const why = button(t("look.show"), () => look(why.getAttribute("aria-pressed") !== "true"), { "aria-pressed": "false" });
  const changes = acts
    ? [
        button(t("chosen.move"), () => (dialog.close(), acts.move([images[place].id]))),
        button(t("remove.one"), () => (dialog.close(), acts.remove([images[place].id]))),
      ]
    : [];
  const dialog = make(
    "dialog",
    { class: "view", "aria-labelledby": "view-title" },
    make("h2", { id: "view-title" }, name),
    large,
    words,
    make(
      "div",
      { class: "row" },
      button("‹", () => step(-1), { "aria-label": t("view.before") }),
      button("›", () => step(1), { "aria-label": t("view.after") }),
      why,
      ...changes,
      button(t("close"), () => dialog.close(), { class: "quiet" }),
    ),
  );

  const step = (by) => {
    place = (place + by + images.length) % images.length;
    const image = images[place];
    write(name, image.name);
    large.alt = image.name;
    large.src = picture(image.id);
    why.setAttribute("aria-pressed", "false");
    show(why, Boolean(image.predicted));
    const guess = image.predicted && t("view.guess", { class: image.predicted, probability: percent(image.probability) });
    write(words, [guess, image.test && t("next.test")].filter(Boolean).join(" "));
  };
  const look = async (on) => {
    const image = images[place];
    why.setAttribute("aria-pressed", String(on));
    if (!on) return void (large.src = picture(image.id));
    const asked = `api/explain/${encodeURIComponent(image.id)}?${query({ class: image.predicted })}`;
    const done = await attempt(async () => {
      const { overlay } = await get(asked);
      if (image === images[place]) large.src = overlay;
    });
    if (!done) (why.setAttribute("aria-pressed", "false"), dialog.close());
  };
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
    event.stopPropagation();
  });
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  step(0);
  dialog.showModal();
}
