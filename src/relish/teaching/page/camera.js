// The camera: chosen among several, its frames as JPEG files. Browsers give it to this computer's own pages and to HTTPS.
import { isTyping, make, show, write } from "./dom.js";
import { t } from "./words.js";

const BURST = 180; // milliseconds between pictures while the button is held
const LONGEST = 1280; // pixels of a picture that is kept

// Why there is no camera for this page, in words; "" where there may be one.
export const cameraBarrier = () => (window.isSecureContext && navigator.mediaDevices ? "" : t("camera.insecure"));

export class Camera {
  constructor(video, select) {
    this.video = video;
    this.select = select;
    select.addEventListener("change", () => this.start(select.value));
  }

  // Throws an `Error` in the user's words.
  async start(device) {
    if (cameraBarrier()) throw new Error(cameraBarrier());
    this.stop();
    const video = { width: { ideal: LONGEST }, ...(device ? { deviceId: { exact: device } } : { facingMode: "environment" }) };
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video });
    } catch (error) {
      const known = ["NotAllowedError", "NotFoundError", "NotReadableError"];
      throw new Error(t(`camera.${known.includes(error.name) ? error.name : "failed"}`));
    }
    this.video.srcObject = this.stream;
    await this.video.play();
    await this.list();
  }

  async list() {
    const cameras = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
    const used = this.stream.getVideoTracks()[0]?.getSettings().deviceId;
    const options = cameras.map(({ deviceId, label }, place) =>
      make("option", { value: deviceId, selected: deviceId === used, text: label || t("camera.number", { n: place + 1 }) }),
    );
    this.select.replaceChildren(...options);
    show(this.select, cameras.length > 1);
  }

  stop() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = this.video.srcObject = null;
  }

  get on() {
    return Boolean(this.stream);
  }

  // What it sees now as a file; null while there is nothing yet.
  frame(name, longest = LONGEST) {
    const { videoWidth: width, videoHeight: height } = this.video;
    if (!width) return Promise.resolve(null);
    const scale = Math.min(1, longest / Math.max(width, height));
    const canvas = make("canvas", { width: Math.round(width * scale), height: Math.round(height * scale) });
    canvas.getContext("2d").drawImage(this.video, 0, 0, canvas.width, canvas.height);
    return new Promise((take) => canvas.toBlob((blob) => take(blob && new File([blob], name, { type: blob.type })), "image/jpeg", 0.92));
  }
}

// A dialog that takes pictures for a class: one at a press, a burst while held. `take(file)` has each.
export function openCamera(title, take) {
  const video = make("video", { muted: true, playsInline: true, "aria-label": t("trial.video") });
  const select = make("select", { "aria-label": t("camera.which"), hidden: true });
  const words = make("p", { role: "status", class: "soft" });
  const shutter = make("button", { type: "button", class: "shutter", text: t("camera.hold"), disabled: true });
  const close = make("button", { type: "button", text: t("camera.done"), on: { click: () => dialog.close() } });
  const attributes = { class: "camera", "aria-label": title };
  const dialog = make("dialog", attributes, make("h2", { text: title }), video, select, words, make("div", { class: "row" }, shutter, close));
  const camera = new Camera(video, select);
  let [taken, timer] = [0, 0];

  const shoot = async () => {
    const stamp = new Date().toISOString().replace(/\D/g, "").slice(0, 17);
    const file = await camera.frame(`camera-${stamp}.jpg`);
    if (!file) return;
    taken += 1;
    write(words, t("camera.taken", { n: taken }));
    take(file);
  };
  const hold = () => {
    if (timer || shutter.disabled) return;
    shutter.classList.add("held");
    shoot();
    timer = setInterval(shoot, BURST);
  };
  const release = () => {
    clearInterval(timer);
    timer = 0;
    shutter.classList.remove("held");
  };
  shutter.addEventListener("pointerdown", (event) => (shutter.setPointerCapture(event.pointerId), hold()));
  for (const end of ["pointerup", "pointercancel", "blur"]) shutter.addEventListener(end, release);
  shutter.addEventListener("keyup", release);
  shutter.addEventListener("contextmenu", (event) => event.preventDefault());
  dialog.addEventListener("keydown", (event) => {
    if ((event.key === " " || event.key === "Enter") && event.target === shutter) (event.preventDefault(), hold());
    if (!isTyping(event.target)) event.stopPropagation();
  });
  dialog.addEventListener("close", () => (release(), camera.stop(), dialog.remove()));
  document.body.append(dialog);
  dialog.showModal();
  camera.start().then(
    () => (dialog.open ? ((shutter.disabled = false), shutter.focus()) : camera.stop()),
    (error) => write(words, error.message),
  );
}
