/* Owns <spark-line>: the session of one ticker as a line of at most POINTS points, drawn once a second at most.
   Decoration beside figures, so hidden from screen readers. Never reads the store. */

const POINTS = 60;
const WIDTH = 120; // units of the viewBox, stretched to whatever the style gives
const HEIGHT = 32;
const EDGE = 3;
const SHORTEST = 60; // seconds the width stands for at least, so that a young session doesn't look like a long one
const SVG = "http://www.w3.org/2000/svg";

class SparkLine extends HTMLElement {
  #line = document.createElementNS(SVG, "polyline");
  #drawn = "";

  connectedCallback() {
    if (this.firstChild) return;
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("preserveAspectRatio", "none");
    this.#line.setAttribute("vector-effect", "non-scaling-stroke");
    svg.append(this.#line);
    this.append(svg);
    this.setAttribute("aria-hidden", "true");
  }

  draw(session) {
    const points = outline(session.sample(POINTS));
    if (points === this.#drawn) return;
    this.#drawn = points;
    this.#line.setAttribute("points", points);
  }
}

/** Points as SVG wants them; fewer than two make no line. */
function outline(points) {
  if (points.length < 2) return "";
  let low = Infinity;
  let high = -Infinity;
  for (const { value } of points) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const last = points[points.length - 1].time;
  const across = WIDTH / Math.max(SHORTEST, last - points[0].time);
  const up = high > low ? (HEIGHT - 2 * EDGE) / (high - low) : 0;
  return points
    .map(({ time, value }) => {
      const y = up ? HEIGHT - EDGE - (value - low) * up : HEIGHT / 2;
      return `${(WIDTH - (last - time) * across).toFixed(1)},${y.toFixed(1)}`;
    })
    .join(" ");
}

customElements.define("spark-line", SparkLine);
