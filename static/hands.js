/* Owns what a hand does to a row beyond a click: a swipe to the side removes it, the grip drags it elsewhere. Never decides
   what that means: it tells `onSwipe(row)` and `onDrop()`. */

const BEGINS = 12; // px to the side from which a touch is a swipe
const BEGINS_DRAG = 3; // px
const FAR = 0.35; // of the row's width

/** Touches only: with a mouse a text is chosen like this. */
export function watchSwipes(list, onSwipe, signal) {
  let row = null;
  let from = null;
  let isSwipe = false;
  const shift = ({ clientX }) => Math.min(0, clientX - from.x);
  const end = (event) => {
    if (!row) return;
    const [swiped, isFar] = [row, isSwipe && event.type === "pointerup" && -shift(event) > row.offsetWidth * FAR];
    row.style.transform = row.style.opacity = "";
    row = null;
    if (isFar) onSwipe(swiped);
  };
  list.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "touch" || event.target.closest("[data-part=grip]")) return;
    row = event.target.closest("price-row");
    from = { x: event.clientX, y: event.clientY };
    isSwipe = false;
  }, { signal });
  list.addEventListener("pointermove", (event) => {
    if (!row) return;
    const across = -shift(event);
    if (!isSwipe && across > BEGINS && across > 2 * Math.abs(event.clientY - from.y)) {
      isSwipe = true;
      row.setPointerCapture(event.pointerId);
    }
    if (!isSwipe) return;
    row.style.transform = `translateX(${shift(event)}px)`;
    row.style.opacity = String(1 - across / row.offsetWidth);
  }, { signal });
  for (const name of ["pointerup", "pointercancel"]) list.addEventListener(name, end, { signal });
}

/** The dragged row stays where it is in the document: its neighbours step aside, else it would lose the pointer. */
export function watchDrags(list, onDrop, signal) {
  let row = null;
  let grabbedAt = 0; // y within the row
  let isMoved = false; // else it is a click like any other on the row
  list.addEventListener("pointerdown", (event) => {
    if (!event.target.closest("[data-part=grip]") || event.button) return;
    event.preventDefault();
    row = event.target.closest("price-row");
    grabbedAt = event.clientY - row.getBoundingClientRect().top;
    isMoved = false;
    event.target.setPointerCapture(event.pointerId);
    list.dataset.dragging = row.dataset.dragged = "";
  }, { signal });
  list.addEventListener("pointermove", ({ clientY }) => {
    if (!row) return;
    isMoved ||= Math.abs(clientY - grabbedAt - row.getBoundingClientRect().top) > BEGINS_DRAG;
    if (isMoved) drag(row, clientY - grabbedAt);
  }, { signal });
  for (const name of ["pointerup", "pointercancel"]) {
    list.addEventListener(name, () => {
      if (!row) return;
      row.style.transform = "";
      delete row.dataset.dragged;
      delete list.dataset.dragging;
      row = null;
      if (isMoved) onDrop();
    }, { signal });
  }
  list.addEventListener("click", (event) => {
    if (isMoved && event.target.closest("[data-part=grip]")) event.stopPropagation(); // the end of a drag
  }, { signal, capture: true });
}

function drag(row, top) {
  const { previousElementSibling: before, nextElementSibling: after } = row;
  row.style.transform = "";
  const place = row.getBoundingClientRect();
  if (before && top < place.top - before.offsetHeight / 2) row.after(before);
  else if (after && top > place.top + after.offsetHeight / 2) row.before(after);
  row.style.transform = `translateY(${top - row.getBoundingClientRect().top}px)`;
}
