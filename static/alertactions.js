/* Owns what a user can do about alerts: make, delete, move, each of the last two to be undone. Pluto confirms or refuses.
   Never touches the document. */

import { offerUndo } from "./actions.js";
import { alerts } from "./alerts.js";
import { sentence } from "./alertwords.js";
import { notify } from "./notices.js";

const LASTS = 5_000; // ms

/** Resolves to Pluto's answer. Only now the browser asks whether Pluto may show its notifications. */
export async function make(wish) {
  const told = await alerts.make(wish);
  if (told.ok) {
    notify(told.message, { lasts: LASTS });
    if (globalThis.Notification?.permission === "default") Notification.requestPermission();
  }
  return told;
}

export async function discard(alert) {
  const removal = alerts.remove(alert.id);
  const notice = offerUndo(`Alert deleted: ${sentence(alert)}.`, async () => {
    await removal;
    say(await alerts.make(wishOf(alert)));
  });
  const told = await removal;
  if (told.ok) return;
  notice.close();
  say(told);
}

/** To another level; all else stays. Resolves to whether it stands there. */
export async function move(alert, value) {
  const told = await alerts.make({ ...wishOf(alert), value }, alert.id);
  if (!told.ok) say(told);
  else {
    const words = told.message.replace("Alert made", "Alert moved");
    offerUndo(words, async () => say(await alerts.make(wishOf(alert), told.answer.alert.id)));
  }
  return told.ok;
}

function say({ ok, message }) {
  if (!ok) notify(message, { lasts: LASTS });
}

function wishOf({ id, ...wish }) {
  return wish;
}
