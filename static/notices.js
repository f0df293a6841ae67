/* Owns what appears over the page's foot for a while: notices, one sentence and perhaps one button each, and toasts. Each goes
   by itself, unless the pointer or the focus is on it or nobody looks. Never decides what is worth saying. */

const LASTS = 2_500; // ms
const AT_MOST = 4;

const closers = new WeakMap(); // what is shown → how to close it
const stacks = document.querySelectorAll("#notices, #toasts");

/** Show a notice; returns {close}. */
export function notify(text, { action = "", onAction, lasts = LASTS, onClose } = {}) {
  const notice = document.createElement("div");
  notice.className = "notice";
  const words = document.createElement("span");
  words.textContent = text;
  notice.append(words);
  if (action) notice.append(button(action, onAction));
  return show(notice, { stack: "notices", lasts, atMost: AT_MOST, onClose });
}

/** Show an element for `lasts` ms in a stack, "notices" or "toasts", that holds at most so many; returns {close}. */
export function show(notice, { stack, lasts, atMost, onClose }) {
  const list = document.getElementById(stack);
  list.append(notice);
  raise(list);
  const close = () => {
    if (!closers.delete(notice)) return;
    clearTimeout(timer);
    notice.remove();
    onClose?.();
  };
  const closeUnlessHeld = () => {
    if (document.hidden) document.addEventListener("visibilitychange", () => (timer = setTimeout(closeUnlessHeld, lasts)), { once: true });
    else if (notice.matches(":hover, :focus-within")) timer = setTimeout(closeUnlessHeld, 1000);
    else close();
  };
  let timer = setTimeout(closeUnlessHeld, lasts);
  closers.set(notice, close);
  if (list.children.length > atMost) closers.get(list.firstElementChild)();
  return { close };
}

/** Above everything, and in the open sheet, if there is one: what is outside can't be clicked. */
function raise(list) {
  const home = [...document.querySelectorAll("dialog[open]")].at(-1) ?? document.body;
  if (list.parentElement !== home) home.append(list);
  if (!list.showPopover) return; // An older browser: a sheet may hide it.
  if (list.matches(":popover-open")) list.hidePopover();
  list.showPopover();
}

new MutationObserver(() => {
  for (const list of stacks) if (list.children.length) raise(list);
}).observe(document.body, { subtree: true, attributeFilter: ["open"] });

function button(label, onClick) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = label;
  made.addEventListener("click", onClick);
  return made;
}
