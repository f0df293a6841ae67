/* Owns short notices at the foot of the page: one sentence, perhaps one button, gone by itself unless the pointer or the
   focus is on it. Never decides what is worth saying. */

const LASTS = 2_500; // ms
const AT_MOST = 4;

const shown = []; // how to close each, the oldest first

/** Show a notice; returns {close}. */
export function notify(text, { action = "", onAction, lasts = LASTS, onClose } = {}) {
  const list = document.getElementById("notices");
  const notice = document.createElement("div");
  notice.className = "notice";
  const words = document.createElement("span");
  words.textContent = text;
  notice.append(words);
  if (action) notice.append(button(action, onAction));
  list.append(notice);
  raise(list);
  let open = true;
  const close = () => {
    if (!open) return;
    open = false;
    clearTimeout(timer);
    shown.splice(shown.indexOf(close), 1);
    notice.remove();
    onClose?.();
  };
  const closeUnlessHeld = () => {
    if (notice.matches(":hover, :focus-within")) timer = setTimeout(closeUnlessHeld, 1000);
    else close();
  };
  let timer = setTimeout(closeUnlessHeld, lasts);
  shown.push(close);
  if (shown.length > AT_MOST) shown[0]();
  return { close };
}

/** Above everything, also above an open sheet. */
function raise(list) {
  if (!list.showPopover) return; // An older browser: a sheet may hide it.
  if (list.matches(":popover-open")) list.hidePopover();
  list.showPopover();
}

function button(label, onClick) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = label;
  made.addEventListener("click", onClick);
  return made;
}
