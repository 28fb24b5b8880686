// The page's words in the browser's language, numbers too; en.json is what every other language is held against.

const LANGUAGES = { en: "en", id: "id", in: "id" }; // "in" is what Indonesian was called until 1989
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufefc]/;
let table = {};
let plural = null;
let numbers = null;
let figures = null;

export async function loadWords() {
  const wanted = navigator.languages.map((one) => LANGUAGES[one.toLowerCase().split("-")[0]]);
  const language = wanted.find(Boolean) ?? "en";
  const response = await fetch(new URL(`${language}.json`, import.meta.url));
  table = await response.json();
  plural = new Intl.PluralRules(language);
  numbers = new Intl.NumberFormat(language, { maximumFractionDigits: 1 });
  figures = new Intl.NumberFormat(language, { maximumSignificantDigits: 2 });
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of document.querySelectorAll("[data-t-label]"))
    element.setAttribute("aria-label", t(element.dataset.tLabel));
  for (const element of document.querySelectorAll("[data-t-placeholder]"))
    element.placeholder = t(element.dataset.tPlaceholder);
}

// A text with its {values}; where it has forms, `n` chooses among them.
export function t(key, values = {}) {
  const found = table[key] ?? key;
  const text = typeof found === "string" ? found : (found[plural.select(values.n)] ?? found.other);
  return text.replace(/\{(\w+)\}/g, (_, name) => shown(values[name]));
}

function shown(value) {
  if (typeof value === "number") return number(value);
  return RIGHT_TO_LEFT.test(value) ? `\u2068${value}\u2069` : String(value);
}

export const number = (value) => numbers.format(value);
export const figure = (value) => figures.format(value); // also of what is far below 1

// Nothing is certain: what only rounds to 0 or 100 is not called so.
export function percent(share, digits = 0) {
  const step = 10 ** digits;
  const rounded = Math.round(100 * share * step) / step;
  if (rounded === 100 && share < 1) return t("percent.over", { value: 100 - 1 / step });
  if (rounded === 0 && share > 0) return t("percent.below", { value: 1 / step });
  return `${number(rounded)}%`;
}

export function bytes(count) {
  return count < 1e6 ? `${number(count / 1e3)} kB` : `${number(count / 1e6)} MB`;
}

export function minutes(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  return whole < 90 ? t("time.seconds", { n: whole }) : t("time.minutes", { n: Math.round(whole / 60) });
}
