/* Owns the keys that work wherever the focus is, and the sheet that explains all keys, with the settings that need
   words. Single letters can be switched off there, as speech input needs. Keys within the board are the board's, keys
   within the field the field's. */

import { undo } from "./actions.js";
import { Part } from "./part.js";
import { settings } from "./settings.js";

class KeyHelp extends Part {
  #dialog = null;

  connectedCallback() {
    this.#dialog = this.querySelector("dialog");
    const signal = this.listen();
    const shortcuts = this.querySelector("#shortcuts");
    shortcuts.checked = settings.get("shortcuts");
    shortcuts.addEventListener("change", () => settings.set("shortcuts", shortcuts.checked), { signal });
    const numbers = this.querySelector("#numbers");
    numbers.checked = settings.get("numbers") === "browser";
    numbers.addEventListener("change", () => settings.set("numbers", numbers.checked ? "browser" : "common"), { signal });
    this.#dialog.addEventListener("click", this.#click, { signal });
    addEventListener("keydown", this.#key, { signal });
  }

  open() {
    if (!this.#dialog.open) this.#dialog.showModal();
  }

  #click = ({ target }) => {
    if (target === this.#dialog || target.closest("[data-close]")) this.#dialog.close();
  };

  #key = (event) => {
    const { key, target, ctrlKey, metaKey, altKey, defaultPrevented } = event;
    if (defaultPrevented || altKey) return;
    const typing = target.matches?.("input:not([type=radio], [type=checkbox]), textarea, select");
    const doing = typing ? null : this.#meaning(key, ctrlKey || metaKey);
    if (!doing || (doing !== undo && document.querySelector("dialog[open]"))) return;
    event.preventDefault();
    doing();
  };

  #meaning(key, commanded) {
    if (commanded) return key === "z" ? undo : null;
    if (key === "ArrowDown" && !document.activeElement?.matches("input")) return () => this.#ask("leave-field");
    if (!settings.get("shortcuts")) return null;
    return {
      "/": () => this.#ask("focus-field"),
      "?": () => this.open(),
      a: () => this.#ask("show-alerts"),
      n: () => this.#ask("make-alert"),
      t: () => settings.cycle("theme"),
      u: undo,
    }[key];
  }

  #ask(name) {
    this.dispatchEvent(new CustomEvent(name, { bubbles: true }));
  }
}

customElements.define("key-help", KeyHelp);
