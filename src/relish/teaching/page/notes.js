// What the page says in passing: a line at the foot of the screen that a screen reader hears too, and refusals.
import { Problem } from "./api.js";
import { at, show, write } from "./dom.js";

const SHOWN = 8000; // milliseconds; undo stays at the head of the page
let timer = 0;

// `undo`: with a button that takes it back.
export function say(words, { undo = false } = {}) {
  write(at("said"), words);
  show(at("toast"), true);
  show(at("toast-undo"), undo);
  clearTimeout(timer);
  timer = setTimeout(() => show(at("toast"), false), SHOWN);
}

export function complain(words) {
  write(at("problem"), words);
  show(at("problem"), words !== "");
}

// Do something; what the server refuses is told in its words. True where it was done.
export async function attempt(act) {
  try {
    await act();
    complain("");
    return true;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    complain(error.message);
    return false;
  }
}
