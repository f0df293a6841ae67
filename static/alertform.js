/* Owns <alert-form>: in a ticker's details its alerts, the form for a new one, and their lines on the chart. The attribute
   data-ticker says whose; without it there are none. Never changes an alert but by alertactions.js. */

import { discard, make, move } from "./alertactions.js";
import { alertRow, contentOf, fill, paintAlert } from "./alertitems.js";
import { alerts } from "./alerts.js";
import { spanWords } from "./alertwords.js";
import { decimals, priceWords } from "./format.js";
import { clock, nextFrame } from "./frame.js";
import { Levels } from "./levels.js";
import { Part, write } from "./part.js";
import { store } from "./store.js";

const WORDS = { above: "at or above", below: "at or below", crosses: "crosses" }; // of levels
const SPANS = [60, 300, 600, 1800, 3600, 14_400, 86_400]; // seconds to choose from
const SPAN = 600;
const MOVE = "2"; // percent, to begin with
const DRAFT = "draft"; // the line of the alert that isn't made yet
const DECIMAL = /^\d+(\.\d+)?$/;

export class AlertForm extends Part {
  static observedAttributes = ["data-ticker"];
  #parts = null;
  #levels = null;
  #ticker = "";
  #isFresh = false; // the form was opened before its chart: which then moves it
  #priced = ""; // the condition for which the value that stands there is meant: "moves" or a level

  attributeChangedCallback() {
    this.unlisten();
    if (!this.#parts) this.#build();
    this.#end();
    this.#ticker = this.dataset.ticker ?? "";
    if (!this.#ticker) return this.#levels.show([], 0);
    const signal = this.listen();
    const chart = this.#chart;
    chart.addEventListener("scale", this.#scale, { signal });
    alerts.addEventListener("change", this.#paint, { signal });
    alerts.addEventListener("replaced", ({ detail }) => this.#levels.rename(...detail), { signal });
    clock.addEventListener("second", this.#hint, { signal });
    this.#levels.place(chart.scale ?? null);
    this.#paint();
    alerts.read();
  }

  /** Open the form, with the price of now to begin with. */
  begin() {
    if (!this.#ticker) return;
    const { form, "new": begin } = this.#parts;
    begin.hidden = true;
    form.hidden = false;
    this.#shape();
    this.#isFresh = !this.#chart.scale;
    this.#reveal();
    form.elements.value.focus({ preventScroll: true });
    form.elements.value.select();
  }

  #reveal = () => {
    this.#parts.form.scrollIntoView({ block: "nearest" });
  };

  #scale = ({ detail: scale }) => {
    this.#levels.place(scale);
    if (!scale || !this.#isFresh) return;
    this.#isFresh = false;
    if (!this.#parts.form.hidden) nextFrame(this.#reveal);
  };

  get #chart() {
    return this.closest("ticker-detail").querySelector("price-chart");
  }

  get #view() {
    return store.view(this.#ticker);
  }

  #build() {
    this.append(contentOf("form-template"));
    this.#parts = Object.fromEntries([...this.querySelectorAll("[data-alert]")].map((part) => [part.dataset.alert, part]));
    const { form, list, "new": begin, cancel } = this.#parts;
    const { within, cooldown } = form.elements;
    for (const span of SPANS) {
      within.add(new Option(spanWords(span), span, span === SPAN, span === SPAN));
      cooldown.add(new Option(`each time, at most once in ${spanWords(span)}`, span));
    }
    this.#levels = new Levels(this.closest("ticker-detail").querySelector(".levels"), { onDrag: this.#drag, onDrop: this.#drop });
    begin.addEventListener("click", () => this.begin());
    cancel.addEventListener("click", () => this.#cancel());
    form.addEventListener("submit", this.#submit);
    form.addEventListener("input", () => this.#shape());
    form.addEventListener("keydown", this.#key);
    list.addEventListener("click", this.#click);
  }

  // -- the form

  get #condition() {
    return this.#parts.form.elements.condition.value;
  }

  get #isLevel() {
    return this.#condition in WORDS;
  }

  /** The fields that the condition has, as Pluto names them. */
  get #wish() {
    const { elements } = this.#parts.form;
    const wish = { ticker: this.#ticker, condition: this.#condition };
    for (const name of ["value", "direction", "within", "hysteresis"]) if (!elements[name].closest("label").hidden) wish[name] = elements[name].value.trim();
    if (wish.within) wish.within = Number(wish.within);
    if (!elements.across_gaps.closest("label").hidden && elements.across_gaps.checked) wish.across_gaps = true;
    if (elements.cooldown.value) Object.assign(wish, { repeat: true, cooldown: Number(elements.cooldown.value) });
    if (elements.note.value) wish.note = elements.note.value;
    if (elements.until.value) wish.until = new Date(elements.until.value).getTime();
    return wish;
  }

  /** Show the fields that go with the condition. */
  #shape() {
    const { form, unit, span } = this.#parts;
    const repeats = form.elements.cooldown.value !== "";
    for (const label of form.querySelectorAll("[data-for]")) {
      label.hidden = !label.dataset.for.split(" ").includes(this.#condition) || ("repeats" in label.dataset && !repeats);
    }
    const kind = this.#isLevel ? "level" : this.#condition;
    if (kind !== "state" && kind !== this.#priced) {
      form.elements.value.value = kind === "moves" ? MOVE : (this.#view.priceText ?? "");
      this.#priced = kind;
    }
    write(unit, kind === "moves" ? "Percent" : `Price ${this.#view.currency ?? ""}`.trim());
    write(span, kind === "moves" ? "Within" : "For longer than");
    this.#refuse("");
    this.#hint();
    this.#paintLines();
  }

  #hint = () => {
    const { form, hint } = this.#parts;
    if (form.hidden) return;
    const [value, price] = [Number(form.elements.value.value), this.#view.price];
    const isThere = value > 0 && { above: price >= value, below: price <= value }[this.#condition];
    write(hint, isThere ? `The price is there now, at ${priceWords(this.#view.priceText)}: this rings at once.` : "");
  };

  #submit = async (event) => {
    event.preventDefault();
    const ticker = this.#ticker;
    const button = this.#parts.buttons.querySelector("[type=submit]");
    if (button.disabled) return;
    button.disabled = true;
    const { ok, message } = await make(this.#wish);
    button.disabled = false;
    if (this.#ticker !== ticker) return;
    if (ok) this.#cancel();
    else this.#refuse(message);
  };

  /** Pluto's sentence, beside the field that it names first; the field is named as it is here. */
  #refuse(message) {
    const { form, refused, buttons } = this.#parts;
    const [name, ...words] = message.split(" ");
    const named = form.elements.namedItem(name);
    form.querySelector("[aria-invalid]")?.removeAttribute("aria-invalid");
    form.querySelector("[aria-describedby]")?.removeAttribute("aria-describedby");
    if (named) {
      named.closest("label").after(refused);
      named.setAttribute("aria-invalid", "true");
      named.setAttribute("aria-describedby", refused.id);
      const details = named.closest("details");
      if (details) details.open = true;
      named.focus();
      write(refused, [nameOf(named), ...words].join(" ").replace(" as text", ""));
    } else {
      if (message) buttons.before(refused);
      write(refused, message);
    }
  }

  #key = (event) => {
    if (event.key !== "Escape") return;
    event.preventDefault(); // Else it closes the sheet.
    this.#cancel();
  };

  #cancel() {
    this.#end();
    this.#paintLines();
    this.#parts.new.focus();
  }

  #end() {
    const { form, "new": begin } = this.#parts;
    form.reset();
    form.querySelector("details").open = false;
    this.#refuse("");
    this.#priced = "";
    form.hidden = true;
    begin.hidden = false;
  }

  // -- the alerts that there are

  #click = ({ target }) => {
    const id = target.closest("[data-item=delete]") && target.closest("li").dataset.id;
    const alert = alerts.all.find((one) => one.id === id);
    if (alert) discard(alert);
  };

  #paint = () => {
    fill(this.#parts.list, alerts.of(this.#ticker), alertRow, (row, alert) => paintAlert(row, alert, { named: false }));
    this.#paintLines();
  };

  #paintLines() {
    const { form } = this.#parts;
    const lines = alerts.of(this.#ticker).filter(({ condition }) => condition in WORDS).map(({ id, condition, value }) => ({ id, value, words: WORDS[condition] }));
    const value = form.elements.value.value.trim();
    if (!form.hidden && this.#isLevel && DECIMAL.test(value)) lines.push({ id: DRAFT, value, words: `new: ${WORDS[this.#condition]}`, isNew: true });
    this.#levels.show(lines, decimals(this.#view.priceText));
  }

  #drag = (id, value) => {
    if (id !== DRAFT) return;
    this.#parts.form.elements.value.value = value;
    this.#refuse("");
    this.#hint();
  };

  #drop = async (id, value) => {
    const alert = alerts.all.find((one) => one.id === id);
    if (alert && !(await move(alert, value))) this.#paintLines();
  };
}

function nameOf(field) {
  return field.dataset.name || field.closest("label").firstElementChild.textContent.trim() || field.name;
}
