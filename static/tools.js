/* Owns <board-tools>: the switches over the board (sort, density, theme, alerts, share, keys). Each shows what settings.js
   holds and changes it there. Never orders or styles anything itself, but for the two attributes on <html>. */

import { share } from "./actions.js";
import { Part } from "./part.js";
import { settings } from "./settings.js";

class BoardTools extends Part {
  connectedCallback() {
    const signal = this.listen();
    settings.addEventListener("change", this.#show, { signal });
    this.addEventListener("change", ({ target }) => settings.set(target.name, target.value), { signal });
    this.addEventListener("click", this.#click, { signal });
    this.#show();
  }

  #click = ({ target }) => {
    const tool = target.closest("button")?.id;
    if (tool === "theme" || tool === "density") settings.cycle(tool);
    else if (tool === "share") share();
    else if (tool === "alerts" || tool === "keys") this.dispatchEvent(new CustomEvent(`show-${tool}`, { bubbles: true }));
  };

  #show = () => {
    this.querySelector("[name=sort]").value = settings.get("sort");
    for (const name of ["theme", "density"]) {
      const choice = settings.get(name);
      const words = `${name === "theme" ? "Theme" : "Density"}: ${choice}`;
      const button = this.querySelector(`#${name}`);
      for (const icon of button.children) icon.toggleAttribute("hidden", icon.dataset.for !== choice);
      button.setAttribute("aria-label", words);
      button.title = words;
    }
    const { dataset } = document.documentElement;
    dataset.density = settings.get("density");
    if (settings.get("theme") === "system") delete dataset.theme;
    else dataset.theme = settings.get("theme");
  };
}

customElements.define("board-tools", BoardTools);
