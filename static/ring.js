/* Owns what the page does when an alert has rung: a toast, a sound if the user wants one, and the browser's notification if it
   is allowed. Never asks for that leave: making an alert does. */

import { alerts } from "./alerts.js";
import { contentOf, paintRaised } from "./alertitems.js";
import { raisedWords, sentence } from "./alertwords.js";
import { show } from "./notices.js";
import { settings } from "./settings.js";

const LASTS = 15_000; // ms
const AT_MOST = 3; // toasts; the list has them all
const TONES = [880, 1175]; // Hz
const TONE = 0.16; // s
const QUIET_FOR = 1_000; // ms from one sound to the next, of all of the browser's tabs
const GAP = 8; // px above the toasts

new ResizeObserver(([{ contentRect: { height } }]) => {
  document.documentElement.style.setProperty("--toasts", height ? `${height + GAP}px` : "0px");
}).observe(document.getElementById("toasts"));

alerts.addEventListener("raised", ({ detail: raised }) => {
  toast(raised);
  if (settings.get("sound")) beepOnce();
  notifyByBrowser(raised);
});

function toast({ deliveries, ...raised }) {
  const element = document.createElement("div");
  element.className = "toast";
  element.append(contentOf("toast-template"));
  element.firstElementChild.after(contentOf("raised-template"));
  paintRaised(element, raised);
  const { close } = show(element, { stack: "toasts", lasts: LASTS, atMost: AT_MOST });
  element.addEventListener("click", ({ target }) => {
    const item = target.closest("button")?.dataset.item;
    if (item === "ticker") open(raised.ticker);
    if (item) close();
  });
}

function open(ticker) {
  document.dispatchEvent(new CustomEvent("open-ticker", { detail: ticker }));
}

/** Several tabs hear it; one of them sounds, where locks tell. Without a click before, browsers allow no sound. */
function beepOnce() {
  if (navigator.userActivation && !navigator.userActivation.hasBeenActive) return;
  if (!navigator.locks) beep();
  else navigator.locks.request("pluto.sound", { ifAvailable: true }, (lock) => lock && Promise.all([beep(), pause(QUIET_FOR)]));
}

async function beep() {
  const context = new AudioContext();
  await Promise.race([context.resume(), pause(QUIET_FOR)]);
  if (context.state === "running") {
    TONES.forEach((tone, at) => sound(context, tone, context.currentTime + at * TONE));
    await pause(QUIET_FOR);
  }
  await context.close();
}

function sound(context, tone, at) {
  const source = new OscillatorNode(context, { frequency: tone });
  const volume = new GainNode(context, { gain: 0 });
  volume.gain.setValueAtTime(0.2, at);
  volume.gain.exponentialRampToValueAtTime(0.001, at + TONE);
  source.connect(volume).connect(context.destination);
  source.start(at);
  source.stop(at + TONE);
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Its tag is the same in every tab: so the browser shows it once. */
function notifyByBrowser(raised) {
  if (globalThis.Notification?.permission !== "granted") return;
  const title = `${raised.simulated ? "SIMULATED · " : ""}${sentence(raised)}`;
  const body = [raisedWords(raised), raised.note].filter(Boolean).join("\n");
  try {
    const shown = new Notification(title, { body, tag: raised.id, icon: "/static/icon.svg" });
    shown.addEventListener("click", () => {
      focus();
      open(raised.ticker);
      shown.close();
    });
  } catch {
    // Browsers on phones leave this to service workers: the toast has to do.
  }
}
