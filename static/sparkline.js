/* Owns <spark-line>: a ticker's trend as a line, drawn once a second at most, and in words how long a time it stands for. A
   gap stays empty. Never reads the store. */

import { duration } from "./format.js";

const WIDTH = 120; // units of the viewBox, stretched to whatever the style gives
const HEIGHT = 32;
const EDGE = 3;
const SHORTEST = 60; // seconds the width stands for at least, so that a young trend doesn't look like a long one
const WHOLE = 23.5 * 3600; // seconds from which a trend is called that of 24 hours
const SVG = "http://www.w3.org/2000/svg";

class SparkLine extends HTMLElement {
  #path = document.createElementNS(SVG, "path");
  #words = document.createElement("span"); // seen where the line stands for less than the head of its column says
  #drawn = "";
  #name = "";

  connectedCallback() {
    if (this.firstChild) return;
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("preserveAspectRatio", "none");
    this.#path.setAttribute("vector-effect", "non-scaling-stroke");
    svg.append(this.#path);
    this.append(svg, this.#words);
    this.setAttribute("role", "img");
    this.setAttribute("aria-hidden", "true"); // until there is a line
  }

  /** `points` are {time, value, begins}, oldest first, in seconds; the last one `end`s the line, or leaves a gap before it. */
  draw({ points, end, isSession }) {
    const outline = outlined(points, end);
    if (outline !== this.#drawn) this.#path.setAttribute("d", (this.#drawn = outline));
    this.#tell(outline ? end - points[0].time : 0, isSession);
  }

  #tell(seconds, isSession) {
    const span = seconds >= WHOLE ? "24 h" : duration(Math.max(SHORTEST, Math.round(seconds / 60) * 60) * 1000);
    const name = seconds ? (isSession ? `This session, ${span}` : `Last ${span}`) : "";
    if (name === this.#name) return;
    this.#name = name;
    this.#words.textContent = name && (isSession || seconds < WHOLE) ? span : "";
    this.title = name;
    this.setAttribute("aria-label", name);
    if (name) this.removeAttribute("aria-hidden");
    else this.setAttribute("aria-hidden", "true");
  }
}

/** Points as SVG wants them; fewer than two make no line. */
function outlined(points, end) {
  if (points.length < 2) return "";
  let low = Infinity;
  let high = -Infinity;
  for (const { value } of points) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const across = WIDTH / Math.max(SHORTEST, end - points[0].time);
  const up = high > low ? (HEIGHT - 2 * EDGE) / (high - low) : 0;
  let outline = "";
  for (const { time, value, begins } of points) {
    const y = up ? HEIGHT - EDGE - (value - low) * up : HEIGHT / 2;
    outline += `${begins || !outline ? "M" : "L"}${(WIDTH - (end - time) * across).toFixed(1)},${y.toFixed(1)}`;
  }
  return outline;
}

customElements.define("spark-line", SparkLine);
