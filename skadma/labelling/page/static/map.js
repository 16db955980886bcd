/** A map of all pictures: similar ones are close, and a line around some lists them. */

import { h, hue, markName, showPicture } from "./dom.js";

const SHAPES = ["●", "■", "▲", "◆", "✚", "★", "▼", "▬"];
const MARGIN = 12;
const NEAR = 10; // pixels
const EVERY = 500;

/** The sign of a class: from the ninth on, where colours repeat, it is another one. */
function shape(k) {
  return SHAPES[(k + Math.floor(k / 8)) % SHAPES.length];
}

/** Whether a point lies in a polygon, by the even-odd rule. */
export function isInside([x, y], corners) {
  let inside = false;
  corners.forEach(([x1, y1], i) => {
    const [x0, y0] = corners.at(i - 1);
    if ((y0 > y) !== (y1 > y) && x < x0 + ((y - y0) * (x1 - x0)) / (y1 - y0)) inside = !inside;
  });
  return inside;
}

export class PoolMap {
  /**
   * @param {Object} page
   * @param {Function} chosen is called with the rows inside the line, null for all
   */
  constructor(page, chosen) {
    this.page = page;
    this.chosen = chosen;
    this.isOpen = false;
    this.rows = [];
    this.places = null; // by picture
    this.placed = null; // of which pool they are
    this.line = [];
    this.canvas = h("canvas", { id: "pool-map", role: "img",
      "aria-label": "Map of the pictures. Those inside a line that you draw are listed below." });
    this.caption = h("p", { class: "quiet", role: "status" });
    this.image = h("img", { alt: "" });
    this.legend = h("ul", { class: "legend" });
    this.element = h("div", { class: "map", hidden: true }, this.canvas,
      h("div", { class: "beside" }, this.legend, this.image, this.caption));
    this.canvas.addEventListener("pointerdown", (event) => this.#down(event));
    this.canvas.addEventListener("pointermove", (event) => this.#move(event));
    this.canvas.addEventListener("pointerup", () => this.#up());
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  /** Show or hide the map. */
  turn() {
    this.isOpen = !this.isOpen;
    this.element.hidden = !this.isOpen;
    this.line = [];
  }

  /** Take over the rows of a pool; those of another one have other places. */
  async take(rows, pool) {
    const asked = (this.asked = {});
    Object.assign(this, { rows, near: null });
    if (this.placed !== pool) Object.assign(this, { places: null, placed: null, line: [] });
    if (!this.isOpen) return;
    if (!this.places) this.#explain("The map is being made …");
    while (!this.places) {
      try {
        const body = { kind: "map", have: 0, contents: [] };
        const answer = await this.page.queue.transport.call("overview", body);
        if (!this.isOpen || this.asked !== asked) return;
        if (answer.values && answer.pool === pool) {
          Object.assign(this, { places: answer.values, placed: pool });
          break;
        }
      } catch (error) {
        this.#explain(error.message);
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, EVERY));
    }
    this.#explain("Similar pictures are close. Draw a line around some to list them; a click lists all.");
    this.draw();
  }

  #explain(text) {
    this.caption.textContent = text;
  }

  /** A place in pixels. */
  #at([x, y]) {
    const { clientWidth, clientHeight } = this.canvas;
    return [MARGIN + (x / 1000) * (clientWidth - 2 * MARGIN),
      MARGIN + (y / 1000) * (clientHeight - 2 * MARGIN)];
  }

  draw() {
    const { clientWidth, clientHeight } = this.canvas;
    if (!this.isOpen || !this.places || !clientWidth) return;
    const { classes } = this.page.queue.about;
    const ratio = devicePixelRatio;
    this.canvas.width = clientWidth * ratio;
    this.canvas.height = clientHeight * ratio;
    const context = this.canvas.getContext("2d");
    context.scale(ratio, ratio);
    const style = getComputedStyle(this.canvas);
    const colour = (name) => style.getPropertyValue(name);
    const colours = classes.map((name) => colour(hue(classes, name).class.replace("hue", "--h")));
    context.font = "11px 'DejaVu Sans', sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    this.rows.forEach((row, i) => {
      if (!this.places[i]) return;
      const [x, y] = this.#at(this.places[i]);
      const k = classes.indexOf(row.mark);
      context.fillStyle = colours[k] ?? colour("--quiet");
      if (k < 0) context.fillRect(x - 1, y - 1, 2, 2);
      else context.fillText(shape(k), x, y);
    });
    if (this.line.length) {
      context.strokeStyle = colour("--accent");
      context.lineWidth = 2;
      context.beginPath();
      this.line.forEach(([x, y]) => context.lineTo(x, y));
      context.closePath();
      context.stroke();
    }
    this.legend.replaceChildren(...classes.map((name, k) => h("li", { class: hue(classes, name).class },
      h("span", { class: "mark", "aria-hidden": "true" }, shape(k)), ` ${name}`)));
  }

  #down(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.drawing = true;
    this.line = [[event.offsetX, event.offsetY]];
  }

  #move(event) {
    const point = [event.offsetX, event.offsetY];
    if (this.drawing) {
      this.line.push(point);
      this.draw();
    } else if (this.places) this.#hover(point);
  }

  #hover([x, y]) {
    let best = NEAR ** 2;
    let row = null;
    this.places.forEach((place, i) => {
      if (!place) return;
      const [a, b] = this.#at(place);
      const distance = (a - x) ** 2 + (b - y) ** 2;
      if (distance < best) [best, row] = [distance, this.rows[i]];
    });
    if (!row || row === this.near) return;
    this.near = row;
    this.#explain(`${row.path}${row.mark ? `: ${markName(row.mark)}` : ""}`);
    showPicture(this.image, this.page.queue.transport.picture(row.sha256, "small")).catch(() => {});
  }

  #up() {
    this.drawing = false;
    if (this.line.length < 3) this.line = [];
    this.draw();
    if (!this.places) return;
    const inside = this.rows.filter((_, i) =>
      this.places[i] && isInside(this.#at(this.places[i]), this.line));
    this.chosen(this.line.length ? inside : null);
  }
}
