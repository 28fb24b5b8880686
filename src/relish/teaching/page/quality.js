// How good the model is, in words before figures, with the range that chance leaves; and how far learning is.
import { onState, post } from "./api.js";
import { at, bar, make, show, write } from "./dom.js";
import { attempt } from "./notes.js";
import { figure, percent, t } from "./words.js";

const EXACT_BELOW = 20; // images: fewer are counted, not rounded to tenths

// `{ right, of, value, low, high }` as a sentence.
export function inWords({ right, of, value, low, high }) {
  const range = { low: percent(low), high: percent(high) };
  const tenth = Math.round(10 * value);
  if (right === of) return t("good.all", { n: of, ...range });
  if (of < EXACT_BELOW || tenth === 10 || tenth === 0) return t("good.exact", { right, n: of, ...range });
  return t("good.about", { tenth, ...range });
}

function verdict({ learning, classes }) {
  if (learning.phase === "failed") return t("good.failed", { reason: learning.reason });
  if (learning.needs_classes) return t(classes.length ? "good.another" : "good.begin", { n: learning.needs_classes });
  if (learning.needs.length)
    return learning.needs.map(({ class: name, more }) => t("good.needs", { n: more, class: name })).join(" ");
  return learning.accuracy ? inWords(learning.accuracy) : t("good.soon");
}

function update(now) {
  const { learning } = now;
  const { accuracy } = learning;
  write(at("verdict"), verdict(now));
  at("verdict").classList.toggle("waits", !accuracy);
  drawInterval(accuracy);
  drawProgress(learning);
  const more = learning.more;
  show(at("more"), Boolean(more));
  if (more) write(at("more"), advice(more));
  drawFigures(learning);
  drawFinal(now);
}

function drawInterval(accuracy) {
  show(at("interval"), Boolean(accuracy));
  if (!accuracy) return;
  const [range, dot] = at("interval").children;
  range.style.left = `${100 * accuracy.low}%`;
  range.style.width = `${100 * (accuracy.high - accuracy.low)}%`;
  dot.style.left = `${100 * accuracy.value}%`;
}

function drawProgress({ phase, queued, done }) {
  const busy = (phase === "features" && queued > 0) || phase === "solving";
  show(at("learning"), busy);
  const progress = at("learning-progress");
  if (phase === "features") progress.value = done / Math.max(1, done + queued);
  else progress.removeAttribute("value");
  if (busy) write(at("learning-words"), t(`learning.${phase}`, { n: queued }));
}

// Said of the range and not only of the figure: more images make both better known.
function advice({ each, value, low, high, now_width, then_width }) {
  const share = then_width / now_width;
  const narrower = share < 0.4 ? "third" : share < 0.6 ? "half" : share < 0.9 ? "narrower" : "same";
  const range = { low: percent(low), high: percent(high), value: percent(value) };
  return `${t("more.expect", { n: each, ...range })} ${t(`more.${narrower}`)}`;
}

function drawFigures({ per_class: classes, confused, accuracy, framing, strength }) {
  show(at("figures"), Boolean(accuracy));
  if (!accuracy) return;
  const bars = classes.map((one) => bar(one.class, one.value, t("quality.class", { right: one.right, n: one.of, low: percent(one.low), high: percent(one.high) })));
  at("per-class").replaceChildren(...bars);
  const taken = confused.map((one) => make("li", { text: t("quality.confused", { n: one.count, class: one.class, as: one.as }) }));
  at("confused").replaceChildren(...taken);
  const seen = t(`framing.${framing.replaceAll(" ", "_")}`);
  write(at("settings"), t("quality.settings", { right: accuracy.right, of: accuracy.of, framing: seen, strength: figure(strength) }));
}

function drawFinal({ learning, final, classes, revision }) {
  const aside = classes.reduce((sum, { test }) => sum + test, 0);
  show(at("final-box"), Boolean(learning.accuracy) && aside > 0);
  write(at("final"), final ? `${t("final.is")} ${inWords(final)}` : "");
  const known = final?.revision === revision; // asked again, it would be the same
  show(at("final-ask"), !known);
  write(at("final-why"), known ? "" : t(final ? "final.old" : "final.why", { n: aside }));
}

export function startQuality() {
  at("final-ask").addEventListener("click", () => attempt(() => post("api/final")));
  onState(update);
}
