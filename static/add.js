/* Owns <add-ticker>: the field, what it offers while one types, and the words beside it when a ticker was refused.
   Never decides whether a ticker is right; actions.js and the server do. */

import { addAll, splitTexts } from "./actions.js";
import { coins } from "./coins.js";
import { Part } from "./part.js";
import { proposal } from "./row.js";
import { settings } from "./settings.js";
import { store } from "./store.js";

const OFFERED = 8;

class AddTicker extends Part {
  #field = null;
  #offers = null; // the list under the field
  #error = null;
  #proposals = null; // what to add instead of what was refused
  #chosen = -1; // which offer is marked, -1 for none

  connectedCallback() {
    this.#field = this.querySelector("input");
    this.#offers = this.querySelector("[role=listbox]");
    this.#error = this.querySelector("[role=alert]");
    this.#proposals = this.querySelector("[data-proposals]");
    const signal = this.listen();
    this.querySelector("form").addEventListener("submit", this.#submit, { signal });
    this.#field.addEventListener("input", this.#typed, { signal });
    this.#field.addEventListener("keydown", this.#key, { signal });
    this.#proposals.addEventListener("click", this.#takeProposal, { signal });
    this.#field.addEventListener("blur", () => this.#offer([]), { signal });
    this.#offers.addEventListener("pointerdown", this.#pick, { signal });
    if (matchMedia("(pointer: fine)").matches) this.focusField();
  }

  focusField() {
    this.#field.focus();
    this.#field.select();
  }

  /** Add all that was typed. What is refused stays in the field, with the reason. */
  #submit = async (event) => {
    event.preventDefault();
    const texts = splitTexts(this.#field.value);
    this.#offer([]);
    this.#say("");
    this.#field.value = "";
    this.#tell(await addAll(texts, (text) => ({ isCoin: coins.has(text) })));
  };

  #tell({ why, text, proposals, added }) {
    if (why && !this.#field.value) this.#field.value = text;
    this.#say(why, proposals);
    this.querySelector("[data-done]").textContent = added.length ? `${added.join(", ")} added.` : "";
  }

  #takeProposal = async ({ target }) => {
    if (!target.value) return;
    this.#field.value = "";
    this.#say("");
    this.#field.focus();
    this.#tell(await addAll([target.value]));
  };

  #say(why, proposals = []) {
    this.#error.textContent = why;
    this.#proposals.replaceChildren(...proposals.map((ticker) => proposal(ticker)));
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
    coins.load().then((fresh) => fresh && this.#chosen < 0 && this.#offer(this.#matches())); // a marked offer stays
  };

  /** {ticker, name} of what the word being typed may become: tracked before, or of a well-known coin. */
  #matches() {
    const word = this.#word();
    if (!word) return [];
    const known = settings.known.map((ticker) => ({ ticker, name: "" }));
    const begin = known.filter(({ ticker }) => ticker.startsWith(word));
    const hold = known.filter(({ ticker }) => !ticker.startsWith(word) && ticker.includes(word));
    const all = [...begin, ...coins.matches(word), ...hold];
    return all
      .filter(({ ticker }, at) => !store.has(ticker) && ticker !== word && all.findIndex((one) => one.ticker === ticker) === at)
      .slice(0, OFFERED);
  }

  #word() {
    return this.#field.value.split(/[,;]\s*/).at(-1);
  }

  #offer(matches) {
    this.#offers.replaceChildren(...matches.map(offer));
    this.#offers.hidden = matches.length === 0;
    this.#field.setAttribute("aria-expanded", String(matches.length > 0));
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
    if (option) this.#take(option.dataset.ticker);
  };

  #key = (event) => {
    const offers = this.#offers.children.length;
    if (event.key === "Escape") this.#escape(offers);
    else if (event.key === "ArrowDown" && offers) this.#choose((this.#chosen + 1) % offers);
    else if (event.key === "ArrowUp" && offers) this.#choose(this.#chosen > 0 ? this.#chosen - 1 : offers - 1);
    else if (event.key === "ArrowDown") this.dispatchEvent(new CustomEvent("leave-field", { bubbles: true }));
    else if (event.key === "Enter" && this.#chosen >= 0) this.#take(this.#offers.children[this.#chosen].dataset.ticker);
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

function offer({ ticker, name }, at) {
  const option = document.createElement("li");
  option.id = `offer-${at}`;
  option.setAttribute("role", "option");
  option.dataset.ticker = ticker;
  const words = document.createElement("small");
  words.textContent = name;
  option.append(ticker, ...(name ? [" ", words] : []));
  return option;
}

customElements.define("add-ticker", AddTicker);
