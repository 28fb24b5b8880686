// Make it better: training in the background, and whether it was worth it. Take it away: what can be downloaded.
import { ROOT, get, onState, post } from "./api.js";
import { at, icon, make, show, write } from "./dom.js";
import { attempt } from "./notes.js";
import { bytes, minutes, t } from "./words.js";

const KINDS = ["onnx", "run"];

function drawBetter({ better, learning }) {
  const busy = better.phase === "running" || better.phase === "stopping";
  const { elapsed, left } = better;
  show(at("better-form"), !busy);
  show(at("better-running"), busy);
  at("better-start").disabled = !learning.accuracy;
  at("better-stop").disabled = better.phase === "stopping";
  show(at("better-resume"), better.phase === "stopped");
  if (busy) {
    at("better-progress").value = elapsed / Math.max(1, elapsed + left);
    write(at("better-time"), better.phase === "stopping" ? t("better.stopping") : t("better.left", { left: minutes(left) }));
    write(at("better-line"), better.line);
  }
  write(at("better-outcome"), outcome(better));
  at("better-outcome").className = better.outcome && !busy ? `outcome ${better.outcome.verdict}` : "";
}

// Of the same held-out images, counted by both: whether it was worth it, then the figures.
function outcome({ phase, reason, outcome: found }) {
  if (phase === "failed") return t("better.failed", { reason });
  if (phase === "stopped") return t("better.stopped");
  if (phase !== "done") return "";
  if (!found) return t("better.alone");
  const { probe, run, p, verdict } = found;
  const chance = p < 0.01 ? t("better.chance.small") : t("better.chance", { n: Math.round(100 * p) });
  return `${t(`better.${verdict}`)} ${t("better.counts", { n: run.of, now: run.right, before: probe.right })} ${chance}`;
}

// Buttons stay the same elements, so that the focus does.
const rows = new Map();

function drawExports({ exports, export_kinds: kinds = KINDS, learning }) {
  for (const kind of kinds) {
    if (!rows.has(kind)) {
      const ask = make("button", { type: "button", on: { click: () => attempt(() => post("api/export", { kind })) } }, icon("download"), make("span", { text: t(`away.${kind}`) }));
      const told = make("p", { class: "soft", text: t(`away.${kind}.what`) });
      const found = make("p", { role: "status" });
      rows.set(kind, { ask, found });
      at("exports").append(make("li", {}, ask, told, found));
    }
    const { ask, found } = rows.get(kind);
    const made = exports.find((one) => one.kind === kind);
    ask.disabled = !learning.accuracy || made?.phase === "making";
    const painted = JSON.stringify(made ?? null);
    if (found.dataset.painted === painted) continue;
    found.dataset.painted = painted;
    found.replaceChildren(...(made ? ready(made) : []));
  }
}

function ready({ phase, reason, name, bytes: size, url, certificate }) {
  if (phase === "making") return [t("away.making")];
  if (phase === "failed") return [t("away.failed", { reason })];
  const link = make("a", { href: new URL(url, ROOT).href, download: "" }, make("bdi", { text: name }));
  const same = certificate ? ` ${t("away.certificate", { agree: certificate.agree, n: certificate.of })}` : "";
  return [link, ` (${bytes(size)})`, same];
}

async function drawCommands() {
  if (!at("commands-box").open) return;
  await attempt(async () => write(at("commands"), (await get("api/command")).commands.join("\n")));
}

export function startTake() {
  at("better-form").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(() => post("api/better/start", { minutes: at("better-minutes").valueAsNumber })).then((done) => done && at("better").focus());
  });
  at("better-stop").addEventListener("click", () => attempt(() => post("api/better/stop")).then(() => at("better").focus()));
  at("better-resume").addEventListener("click", () => attempt(() => post("api/better/resume")).then(() => at("better").focus()));
  at("commands-box").addEventListener("toggle", drawCommands);
  onState(drawBetter);
  onState(drawExports);
}
