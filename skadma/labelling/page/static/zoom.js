/** Zoom and position of the picture on a stage: wheel, drag, two fingers, keys, swipes. */

const STEPS = [1, 2, 4, 8];
const MOST = 16;
const SWIPE = 60; // pixels that a finger goes at least

export class Zoom {
  /**
   * @param {HTMLElement} stage which holds one <img> of its own size
   * @param {Function} changed called after each change
   * @param {Function} [swiped] called with "left", "right", "up" or "down", where a finger
   *   swipes over a picture that is not zoomed
   */
  constructor(stage, changed, swiped = () => {}) {
    this.stage = stage;
    this.changed = changed;
    this.swiped = swiped;
    this.scale = 1;
    this.x = 0; // of the picture's corner, as a share of the stage's width
    this.y = 0;
    this.over = null; // where the mouse is
    this.pointers = new Map();
    stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    stage.addEventListener("dblclick", (event) =>
      this.scale > 1 ? this.fit() : this.by(STEPS[1], this.#point(event)));
    stage.addEventListener("pointerdown", (event) => this.#down(event));
    stage.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) {
      stage.addEventListener(name, (event) => this.#up(event));
    }
    stage.addEventListener("pointerleave", () => { this.over = null; });
    stage.addEventListener("keydown", (event) => this.#key(event));
  }

  /** The whole picture. */
  fit() {
    [this.scale, this.x, this.y] = [1, 0, 0];
    this.#apply();
  }

  /** Zoom in by a factor; the point stays where it is: the mouse's, else the middle. */
  by(factor, [px, py] = this.over ?? [0.5, 0.5]) {
    const scale = Math.min(MOST, Math.max(1, this.scale * factor));
    this.x = px - ((px - this.x) * scale) / this.scale;
    this.y = py - ((py - this.y) * scale) / this.scale;
    this.scale = scale;
    this.#apply();
  }

  /** The next step; the whole picture after the last one. */
  next() {
    const step = STEPS.find((each) => each > this.scale * 1.01);
    if (step) this.by(step / this.scale);
    else this.fit();
  }

  /** Do what a key or a button means; false if it is not about zoom. */
  act(name) {
    if (name === "zoom") this.next();
    else if (name === "closer") this.by(1.5);
    else if (name === "farther") this.by(1 / 1.5);
    else if (name === "fit") this.fit();
    else return false;
    return true;
  }

  /** Move what is seen, by shares of the stage. */
  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.#apply();
  }

  /** Give the stage's picture this zoom and position. */
  show() {
    const image = this.stage.querySelector("img");
    if (!image) return;
    image.draggable = false;
    image.style.transform =
      `translate(${100 * this.x}%, ${100 * this.y}%) scale(${this.scale})`;
    this.stage.classList.toggle("zoomed", this.scale > 1);
  }

  #apply() {
    const inside = (at) => Math.min(0, Math.max(1 - this.scale, at));
    this.x = inside(this.x);
    this.y = inside(this.y);
    this.show();
    this.changed();
  }

  #point({ clientX, clientY }) {
    const { left, top, width, height } = this.stage.getBoundingClientRect();
    return [(clientX - left) / width, (clientY - top) / height];
  }

  #wheel(event) {
    if (!this.stage.querySelector("img")) return;
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 20 : 1;
    this.by(Math.exp(-0.002 * lines * event.deltaY), this.#point(event));
  }

  #key(event) {
    const step = { ArrowLeft: [0.2, 0], ArrowRight: [-0.2, 0], ArrowUp: [0, 0.2],
      ArrowDown: [0, -0.2] }[event.key];
    if (!step || this.scale === 1 || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.pan(...step);
  }

  #down(event) {
    if (event.button !== 0 || !this.stage.querySelector("img")) return;
    this.pointers.set(event.pointerId, this.#point(event));
    this.stage.setPointerCapture(event.pointerId);
    const { clientX, clientY, pointerType, timeStamp } = event;
    const alone = this.pointers.size === 1 && this.scale === 1 && pointerType !== "mouse";
    this.from = alone ? { clientX, clientY, timeStamp } : null;
  }

  #move(event) {
    const point = this.#point(event);
    if (event.pointerType === "mouse") this.over = point;
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const others = [...this.pointers].filter(([id]) => id !== event.pointerId);
    this.pointers.set(event.pointerId, point);
    if (others.length) {
      const [[, other]] = others;
      const apart = ([x, y]) => Math.hypot(x - other[0], y - other[1]) || 1;
      this.by(apart(point) / apart(before), other);
    } else if (this.scale > 1) this.pan(point[0] - before[0], point[1] - before[1]);
  }

  #up(event) {
    this.pointers.delete(event.pointerId);
    const { from } = this;
    this.from = null;
    if (!from || event.type === "pointercancel" || event.timeStamp - from.timeStamp > 800) return;
    const dx = event.clientX - from.clientX;
    const dy = event.clientY - from.clientY;
    const along = Math.max(Math.abs(dx), Math.abs(dy));
    if (along < SWIPE || Math.min(Math.abs(dx), Math.abs(dy)) > along / 2) return;
    if (Math.abs(dx) > Math.abs(dy)) this.swiped(dx < 0 ? "left" : "right");
    else this.swiped(dy < 0 ? "up" : "down");
  }
}
