/* Owns <add-ticker>: the field, what it offers while one types, and the words beside it when a ticker was refused.
   Never decides whether a ticker is right; actions.js and the server do. */

import { add, splitTickers } from "./actions.js";
import { settings } from "./settings.js";
import { store } from "./store.js";

const OFFERED = 6;

class AddTicker extends HTMLElement {
  #field = null;
  #offers = null; // the list under the field
  #error = null;
  #chosen = -1; // which offer is marked, -1 for none
  #listening = null;

  connectedCallback() {
    this.#field = this.querySelector("input");
    this.#offers = this.querySelector("[role=listbox]");
    this.#error = this.querySelector("[role=alert]");
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    this.querySelector("form").addEventListener("submit", this.#submit, { signal });
    this.#field.addEventListener("input", this.#typed, { signal });
    this.#field.addEventListener("keydown", this.#key, { signal });
    this.#field.addEventListener("blur", () => this.#offer([]), { signal });
    this.#offers.addEventListener("pointerdown", this.#pick, { signal });
    if (matchMedia("(pointer: fine)").matches) this.focusField();
  }

  disconnectedCallback() {
    this.#listening.abort();
  }

  focusField() {
    this.#field.focus();
    this.#field.select();
  }

  /** Add all that was typed. What is refused stays in the field, with the reason. */
  #submit = async (event) => {
    event.preventDefault();
    const tickers = splitTickers(this.#field.value);
    this.#offer([]);
    this.#say("");
    this.#field.value = "";
    const known = tickers.filter((ticker) => store.has(ticker));
    known.forEach((ticker) => this.dispatchEvent(new CustomEvent("point-out", { bubbles: true, detail: ticker })));
    const outcomes = await Promise.all(tickers.filter((ticker) => !known.includes(ticker)).map(outcome));
    this.#refuse(outcomes.filter(({ why }) => why));
    const added = outcomes.filter(({ why }) => !why).map(({ ticker }) => ticker);
    this.querySelector("[data-done]").textContent = added.length ? `${added.join(", ")} added.` : "";
  };

  #refuse(refusals) {
    if (!refusals.length) return;
    if (!this.#field.value) this.#field.value = refusals.map(({ ticker }) => ticker).join(" ");
    this.#say([...new Set(refusals.map(({ why }) => why))].join(" "));
  }

  #say(why) {
    this.#error.textContent = why;
    this.#field.setAttribute("aria-invalid", String(Boolean(why)));
  }

  #typed = ({ isComposing }) => {
    if (isComposing) return;
    const { selectionStart, selectionEnd, value } = this.#field;
    const upper = value.toUpperCase();
    if (upper !== value && upper.length === value.length) {
      this.#field.value = upper;
      this.#field.setSelectionRange(selectionStart, selectionEnd);
    }
    this.#say("");
    this.#offer(this.#matches());
  };

  /** Tickers tracked before that begin with the word being typed, then those that hold it. */
  #matches() {
    const word = this.#word();
    if (!word) return [];
    const known = settings.known.filter((ticker) => !store.has(ticker) && ticker !== word);
    const begin = known.filter((ticker) => ticker.startsWith(word));
    const hold = known.filter((ticker) => !ticker.startsWith(word) && ticker.includes(word));
    return [...begin, ...hold].slice(0, OFFERED);
  }

  #word() {
    return this.#field.value.split(/[\s,;]/).at(-1);
  }

  #offer(tickers) {
    this.#offers.replaceChildren(...tickers.map(offer));
    this.#offers.hidden = tickers.length === 0;
    this.#field.setAttribute("aria-expanded", String(tickers.length > 0));
    this.#choose(-1);
  }

  #choose(at) {
    this.#chosen = at;
    [...this.#offers.children].forEach((option, index) => option.setAttribute("aria-selected", String(index === at)));
    const option = this.#offers.children[at];
    if (option) this.#field.setAttribute("aria-activedescendant", option.id);
    else this.#field.removeAttribute("aria-activedescendant");
  }

  #take(ticker) {
    const word = this.#word();
    this.#field.value = this.#field.value.slice(0, this.#field.value.length - word.length) + ticker;
    this.#offer([]);
  }

  #pick = (event) => {
    event.preventDefault(); // The field keeps the focus.
    const option = event.target.closest("[role=option]");
    if (option) this.#take(option.textContent);
  };

  #key = (event) => {
    const offers = this.#offers.children.length;
    if (event.key === "Escape") this.#escape(offers);
    else if (event.key === "ArrowDown" && offers) this.#choose((this.#chosen + 1) % offers);
    else if (event.key === "ArrowUp" && offers) this.#choose(this.#chosen > 0 ? this.#chosen - 1 : offers - 1);
    else if (event.key === "ArrowDown") this.dispatchEvent(new CustomEvent("leave-field", { bubbles: true }));
    else if (event.key === "Enter" && this.#chosen >= 0) this.#take(this.#offers.children[this.#chosen].textContent);
    else return;
    event.preventDefault();
  };

  #escape(offers) {
    if (offers) return this.#offer([]);
    this.#field.value = "";
    this.#say("");
    this.#field.blur();
  }
}

async function outcome(ticker) {
  return { ticker, why: await add(ticker) };
}

function offer(ticker, at) {
  const option = document.createElement("li");
  option.id = `offer-${at}`;
  option.setAttribute("role", "option");
  option.textContent = ticker;
  return option;
}

customElements.define("add-ticker", AddTicker);
