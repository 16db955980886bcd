/** A list of tiles of any length: only those that are seen are in the document. */

import { h, isBroken, showPicture } from "./dom.js";

const GAP = 8;
const OVERSCAN = 2; // rows above and below
const REST = 60; // milliseconds without scrolling after which pictures are fetched
const TALLEST = 16e6; // pixels: browsers end elements somewhat above

export class Tiles {
  /**
   * @param {Object} attributes of the element that scrolls
   * @param {Object} view `tile(i)` the properties of a tile, `update(cell, i)` how it is
   *   now, `sha256(i)` its picture
   * @param {{picture: Function}} transport
   */
  constructor(attributes, view, transport) {
    this.view = view;
    this.transport = transport;
    this.n = 0;
    this.size = 148;
    this.columns = 1;
    this.cells = new Map();
    this.space = h("div", { class: "space" });
    this.element = h("div", { class: "scroll", ...attributes }, this.space);
    this.element.addEventListener("scroll", () => this.#moved(), { passive: true });
    this.resized = new ResizeObserver(() => this.render());
    this.resized.observe(this.element);
  }

  /** Show another list, from its top. */
  reset(n, top = true) {
    this.n = n;
    for (const [, cell] of this.cells) cell.remove();
    this.cells.clear();
    if (top) this.element.scrollTop = 0;
    this.render();
  }

  get #step() {
    return this.size + GAP;
  }

  /** Pixels of the list above what is seen. */
  get #top() {
    const { scrollTop, clientHeight } = this.element;
    return scrollTop * this.#scale(clientHeight);
  }

  #scale(height) {
    const total = this.rows * this.#step;
    return total <= TALLEST ? 1 : (total - height) / (TALLEST - height);
  }

  get rows() {
    return Math.ceil(this.n / this.columns);
  }

  /** The tiles that are seen whole: the first, and the one after the last. */
  get seen() {
    const { clientHeight } = this.element;
    const first = Math.max(0, Math.ceil((this.#top - 1) / this.#step));
    const last = Math.floor((this.#top + clientHeight + GAP + 1) / this.#step);
    return [first * this.columns, Math.min(this.n, Math.max(last, first + 1) * this.columns)];
  }

  #moved() {
    this.render();
  }

  /** Bring the document up to date with the list and the place in it. */
  render() {
    const { clientWidth, clientHeight, scrollTop } = this.element;
    if (!clientWidth) return;
    this.columns = Math.max(2, Math.floor((clientWidth + GAP) / this.#step));
    const width = (clientWidth + GAP) / this.columns - GAP;
    this.space.style.height = `${Math.min(this.rows * this.#step, TALLEST)}px`;
    const top = this.#top;
    const first = Math.max(0, Math.floor(top / this.#step) - OVERSCAN) * this.columns;
    const end = Math.ceil((top + clientHeight) / this.#step) + OVERSCAN;
    const last = Math.min(this.n, end * this.columns);
    for (const [i, cell] of this.cells) {
      if (i >= first && i < last) continue;
      if (cell === document.activeElement) this.element.focus({ preventScroll: true });
      cell.remove();
      this.cells.delete(i);
    }
    for (let i = first; i < last; i++) {
      let cell = this.cells.get(i);
      if (!cell) {
        cell = h("button", { type: "button", "data-index": i, "data-sha256": this.view.sha256(i),
          ...this.view.tile(i) }, h("img", { alt: "", draggable: "false" }), h("span", {}));
        this.cells.set(i, cell);
        this.space.append(cell);
      }
      const row = Math.floor(i / this.columns);
      cell.style.width = `${width}px`;
      cell.style.height = `${this.size}px`;
      cell.style.left = `${(i % this.columns) * (width + GAP)}px`;
      cell.style.top = `${row * this.#step - top + scrollTop}px`;
      this.view.update(cell, i);
    }
    clearTimeout(this.rest);
    this.rest = setTimeout(() => this.#fetch(), REST);
  }

  /** Fetch the pictures of the tiles that are there, those that are seen first. */
  #fetch() {
    const [first, end] = this.seen;
    const away = (i) => (i < first ? first - i : Math.max(0, i - end));
    const cells = [...this.cells].sort(([a], [b]) => away(a) - away(b));
    for (const [, cell] of cells) {
      const image = cell.firstElementChild;
      if (image.asked) continue;
      showPicture(image, this.transport.picture(cell.dataset.sha256, "small"))
        .catch((error) => { if (!isBroken(error)) image.asked = null; });
    }
  }

  /** Scroll so that a tile is seen, and give it the focus. */
  focus(i) {
    const y = Math.floor(i / this.columns) * this.#step;
    const { clientHeight } = this.element;
    const scale = this.#scale(clientHeight);
    if (y < this.#top) this.element.scrollTop = y / scale;
    else if (y + this.size > this.#top + clientHeight) {
      this.element.scrollTop = (y + this.size - clientHeight) / scale;
    }
    this.render();
    this.cells.get(i)?.focus({ preventScroll: true });
  }
}
