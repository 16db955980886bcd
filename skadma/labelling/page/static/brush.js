/**
 * A hand over tiles: which ones a key means. Hover and press a key; hold the key and
 * paint; drag, Shift and Ctrl select; arrows move.
 */

import { h, showPicture } from "./dom.js";

export class Brush {
  /**
   * @param {HTMLElement} element holds the tiles, each with data-index
   * @param {Object} view `n` tiles in `columns`, `sha256(i)` their pictures;
   *   `paint(indices, mark)`; `flush()` when the hand is done; `focus(i)`; `clicked(i)`;
   *   `changed()` when the selection did
   */
  constructor(element, view) {
    this.view = view;
    this.element = element;
    this.selected = new Set();
    this.at = 0; // the tile of the keyboard
    this.point = null; // of the pointer, while it is what is used
    this.last = -1; // the tile that was under it
    this.held = null; // the mark of a key that is held
    this.from = null; // where a drag began
    element.addEventListener("pointermove", (event) => this.#over(event));
    // A dialog comes between: the pointer is used all the same.
    element.addEventListener("pointerleave", ({ relatedTarget }) => {
      if (!relatedTarget?.closest?.("dialog")) this.#leave();
    });
    element.addEventListener("pointerenter", (event) => {
      if (this.point) this.point = event;
    });
    element.addEventListener("wheel", (event) => { this.point = event; }, { passive: true });
    document.addEventListener("scroll", () => this.#scrolled(), true);
    window.addEventListener("keydown", ({ key }) => { if (key === "Tab") this.#leave(); }, true);
    element.addEventListener("pointerdown", (event) => this.#down(event));
    element.addEventListener("click", (event) => this.#click(event), true);
    element.addEventListener("keydown", (event) => this.#move(event));
    element.addEventListener("focusin", (event) => {
      if (this.#index(event) >= 0) this.at = this.#index(event);
    });
    window.addEventListener("pointerup", () => { this.from = null; });
    for (const type of ["keyup", "blur"]) window.addEventListener(type, () => this.release());
  }

  /** The tile under the pointer, or -1; tiles move below a pointer that rests. */
  get hovered() {
    if (!this.point || !this.element.isConnected) return -1;
    const tile = document.elementFromPoint(this.point.clientX, this.point.clientY);
    return this.element.contains(tile) ? this.#index({ target: tile }) : -1;
  }

  /** The tile that the hand is at, or -1. */
  get current() {
    if (this.point) return this.hovered;
    const focused = this.element.contains(document.activeElement)
      && this.#index({ target: document.activeElement }) === this.at; // else it is not seen
    return focused && this.at < this.view.n ? this.at : -1;
  }

  /** The tiles that are meant: several that are selected, else the one of the hand. */
  get meant() {
    const { current, selected } = this;
    return current < 0 || selected.size > 1 ? [...selected] : [current];
  }

  /** Select these tiles alone. */
  select(indices) {
    this.selected = new Set(indices);
    this.view.changed();
  }

  /** Tiles were added or taken away: `now` gives a former index's present one, or -1. */
  follow(now) {
    const there = (i) => i >= 0;
    this.selected = new Set([...this.selected].map(now).filter(there));
    if (there(now(this.at))) this.at = now(this.at);
    if (this.anchor !== undefined) this.anchor = there(now(this.anchor)) ? now(this.anchor) : undefined;
  }

  /** A key gives a mark, as long as it is held; false if it means no tile. */
  hold(mark) {
    const { meant } = this;
    if (!meant.length) return false;
    this.view.paint(meant, mark);
    if (meant.length === 1 && this.point) this.held = mark;
    this.#goOn(meant);
    return true;
  }

  /** What gives the tiles that are meant now a mark later; null if none is. */
  aim() {
    const meant = this.meant.map((i) => this.view.sha256(i));
    if (!meant.length) return null;
    return (mark) => {
      const places = new Map();
      for (let i = 0; i < this.view.n; i++) places.set(this.view.sha256(i), i);
      const there = meant.filter((sha256) => places.has(sha256)).map((sha256) => places.get(sha256));
      if (there.length) this.view.paint(there, mark);
      this.view.flush();
      if (there.length) this.#goOn(there);
      return there.length === meant.length;
    };
  }

  #goOn(painted) {
    if (painted.length > 1) this.select([]);
    else if (!this.point) this.view.focus(Math.min(this.at + 1, this.view.n - 1));
  }

  #leave() {
    this.point = null;
    this.last = -1;
  }

  #scrolled() {
    if (!this.point || !this.element.isConnected || this.hovered === this.last) return;
    this.last = this.hovered;
    this.view.changed();
  }

  /** The key is up: what was painted is done. */
  release() {
    this.held = null;
    this.view.flush();
  }

  #index(event) {
    const tile = event.target.closest?.("[data-index]");
    const i = tile ? Number(tile.dataset.index) : -1;
    return i < this.view.n ? i : -1;
  }

  #over(event) {
    if (!this.point && !event.movementX && !event.movementY) return; // tiles moved
    const i = this.#index(event);
    const changed = i !== this.last;
    this.point = event;
    this.last = i;
    if (!changed || i < 0) return;
    // The next key is for the picture, and not for a control that was used before.
    if (!this.element.contains(document.activeElement)) {
      this.element.focus({ preventScroll: true });
    }
    if (this.held !== null) this.view.paint([i], this.held);
    if (this.from !== null && event.buttons & 1 && i !== this.from) {
      this.dragged = true;
      this.select([...this.kept, ...this.#between(this.from, i)]);
    }
    this.view.changed();
  }

  #down(event) {
    const i = this.#index(event);
    this.dragged = false;
    if (i < 0 || event.button !== 0 || event.pointerType === "touch" || event.shiftKey) return;
    this.from = i;
    this.kept = event.ctrlKey || event.metaKey ? [...this.selected] : [];
  }

  /** The tiles of a rectangle between two corners. */
  #between(a, b) {
    const { columns, n } = this.view;
    const [x0, x1] = [a % columns, b % columns].sort((p, q) => p - q);
    const [y0, y1] = [a, b].map((i) => Math.floor(i / columns)).sort((p, q) => p - q);
    const found = [];
    for (let y = y0; y <= y1; y++) {
      for (let x = x0; x <= x1; x++) if (y * columns + x < n) found.push(y * columns + x);
    }
    return found;
  }

  #click(event) {
    const i = this.#index(event);
    if (i < 0 && !this.dragged) return; // a button beside the tiles
    const swallow = this.dragged || i < 0;
    if (swallow || event.shiftKey || event.ctrlKey || event.metaKey) {
      event.preventDefault();
      event.stopPropagation();
    }
    this.dragged = false;
    if (swallow) return;
    if (event.shiftKey) {
      const [a, b] = [this.anchor ?? this.at, i].sort((p, q) => p - q);
      this.at = i;
      this.select(Array.from({ length: b - a + 1 }, (_, k) => a + k));
      return;
    }
    this.anchor = this.at = i;
    if (event.ctrlKey || event.metaKey) {
      if (!this.selected.delete(i)) this.selected.add(i);
      this.view.changed();
    } else this.view.clicked(i);
  }

  #move(event) {
    const { columns, n } = this.view;
    if (event.altKey || !n) return;
    if ((event.ctrlKey || event.metaKey) && event.key === "a") {
      event.preventDefault();
      this.select(Array.from({ length: n }, (_, i) => i));
      return;
    }
    if (event.key === "Escape") this.select([]);
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns,
      PageUp: -3 * columns, PageDown: 3 * columns }[event.key];
    const to = { Home: 0, End: n - 1 }[event.key] ?? this.at + step;
    if (Number.isNaN(to) || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this.#leave();
    const next = Math.max(0, Math.min(to, n - 1));
    if (event.shiftKey) {
      this.anchor ??= this.at;
      const [a, b] = [this.anchor, next].sort((p, q) => p - q);
      this.selected = new Set(Array.from({ length: b - a + 1 }, (_, k) => a + k));
    } else this.anchor = next;
    this.at = next;
    this.view.focus(next);
    this.view.changed();
  }
}

/** The picture that the hand is at, large. */
export class Loupe {
  /** @param {{picture: Function}} transport */
  constructor(transport) {
    this.transport = transport;
    this.image = h("img", { alt: "" });
    this.name = h("p", { class: "quiet" });
    this.element = h("div", { class: "loupe", id: "loupe", hidden: true }, this.image, this.name);
    this.on = false;
  }

  turn() {
    this.on = !this.on;
    this.element.hidden = true;
  }

  /** Show an item, or nothing. */
  show(item) {
    this.element.hidden = !this.on || !item;
    if (this.element.hidden || this.element.dataset.sha256 === item.sha256) return;
    this.element.dataset.sha256 = item.sha256;
    this.name.textContent = item.path;
    showPicture(this.image, this.transport.picture(item.sha256, "view")).catch(() => {});
  }
}
