// Elements made of properties. Every word goes in as text, never as HTML.

export const at = (id) => document.getElementById(id);

// make("button", { class: "quiet", text: "Stop", on: { click: stop }, "aria-label": "Stop it" }, child, …)
export function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "text") made.textContent = value;
    else if (name === "class") made.className = value;
    else if (name === "on") for (const [event, heard] of Object.entries(value)) made.addEventListener(event, heard);
    else if (name in made && typeof value !== "string") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

export function icon(name) {
  const [svg, use] = ["svg", "use"].map((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

// Only what differs is written: a live region speaks at every writing, and a focused button stays itself.
export function write(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

export function show(element, whether) {
  if (element.hidden === whether) element.hidden = !whether;
}

export const isTyping = (target) => target instanceof Element && target.matches("input:not([type=range]), select, textarea");

export function bar(name, share, words) {
  const filled = make("i");
  filled.style.width = `${100 * share}%`;
  return make(
    "li",
    {},
    make("div", { class: "line" }, make("bdi", { text: name }), make("span", { text: words })),
    make("div", { class: "track", "aria-hidden": "true" }, filled),
  );
}

// One question in a dialog: resolves to the value of the button pressed, or null. `options`: { value, label }.
export function choose(title, options, cancel) {
  return new Promise((resolve) => {
    let answer = null;
    const buttons = options.map(({ value, label }, place) => {
      const key = place < 9 ? [make("kbd", { text: String(place + 1) })] : [];
      const pick = () => ((answer = value), dialog.close());
      return make("button", { type: "button", on: { click: pick } }, make("bdi", { text: label }), ...key);
    });
    const dialog = make(
      "dialog",
      { "aria-labelledby": "choose-title", class: "choose" },
      make("h2", { id: "choose-title", text: title }),
      make("div", { class: "choices" }, ...buttons),
      make("button", { type: "button", class: "quiet", text: cancel, on: { click: () => dialog.close() } }),
    );
    dialog.addEventListener("keydown", (event) => {
      if (/^[1-9]$/.test(event.key)) buttons[event.key - 1]?.click();
      event.stopPropagation();
    });
    dialog.addEventListener("close", () => (dialog.remove(), resolve(answer)));
    document.body.append(dialog);
    dialog.showModal();
  });
}
