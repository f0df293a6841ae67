/* Owns what all elements of the page have in common: they listen only while they are in the document or open, and write only
   what differs. Never paints by itself. */

/** An element that listens by the signal of `listen()`, until `unlisten()` or its end. */
export class Part extends HTMLElement {
  #listening = null;

  listen() {
    this.unlisten();
    this.#listening = new AbortController();
    return this.#listening.signal;
  }

  unlisten() {
    this.#listening?.abort();
  }

  disconnectedCallback() {
    this.unlisten();
  }
}

/** Write a text if it differs; true when it did. */
export function write(element, text) {
  const shown = element.firstChild;
  if (shown ? shown.data === text : text === "") return false;
  if (shown) shown.data = text; // No new node for each price: collecting them would cost more than all the rest.
  else element.textContent = text;
  return true;
}

/** From now on a list has so many children: what is lacking is made, what is too much goes. */
export function fit(list, count, make) {
  while (list.children.length > count) list.lastElementChild.remove();
  while (list.children.length < count) list.append(make());
}
