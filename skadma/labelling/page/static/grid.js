/** Many pictures at once. */

import { Brush, Loupe } from "./brush.js";
import { h, hue, markName, refill, smallPicture } from "./dom.js";
import { keyName } from "./keys.js";

export class Grid {
  /** @param {Object} page the queue, the keys, the settings, `announce` */
  constructor(page) {
    this.page = page;
    // By picture, each with the event as of which it is named; null: none, though the
    // model has a guess.
    this.marks = new Map();
    this.cells = new Map();
    this.stroke = new Map(); // marks by a key that is held: before and now, by picture
    this.head = h("div", { class: "gridhead" });
    const hint = h("p", { class: "quiet hint" }, "A label's key labels the picture under " +
      "the pointer, or with the focus; held, it paints. Drag, Shift and Ctrl select. A click goes through the labels.");
    this.tiles = h("div", { class: "tiles", id: "tiles", role: "group",
      "aria-label": "Pictures" });
    this.element = h("section", { class: "grid", "aria-label": "Label many at once" },
      this.head, hint, this.tiles, (this.loupe = new Loupe(page.queue.transport)).element);
    this.brush = new Brush(this.tiles, this);
  }

  get ahead() {
    return this.page.settings.many + 6;
  }

  get labels() {
    return true;
  }

  get items() {
    return this.page.queue.items.slice(0, this.page.settings.many);
  }

  get n() {
    return this.items.length;
  }

  get columns() {
    return getComputedStyle(this.tiles).gridTemplateColumns.split(" ").length;
  }

  close() {
    this.brush.release();
  }

  sha256(i) {
    return this.items[i].sha256;
  }

  /** The label that a tile has now: given, or the model's guess where that is wanted. */
  mark(item) {
    const given = this.marks.get(item.sha256);
    if (given) return this.page.queue.present(...given);
    return this.page.settings.prefill ? item.guess ?? null : null;
  }

  render() {
    const { queue, keys, settings } = this.page;
    const items = this.items;
    this.tiles.style.setProperty("--tile", `${settings.tile}px`);
    const n = items.filter((item) => this.mark(item)).length;
    const { classes } = queue.about;
    refill(this.head, [n, items.length, settings, keys.on, [...keys.changed], classes],
      () => this.#head(n));
    if (items.length) {
      delete this.tiles.dataset.key;
      this.#renderTiles(items);
    } else {
      this.cells.clear();
      refill(this.tiles, ["empty", queue.state?.stage, queue.state?.read_all, queue.nDecided,
        queue.state?.n_skipped, queue.passed.size, queue.state?.n_images, queue.elsewhere], () => this.page.emptiness());
    }
  }

  /** Drop the marks of pictures; return those that there were. */
  forget(items) {
    const rows = items.filter(({ sha256 }) => this.marks.has(sha256))
      .map(({ sha256 }) => [sha256, this.marks.get(sha256)]);
    for (const [sha256] of rows) this.marks.delete(sha256);
    return rows;
  }

  /** Set marks; undefined takes one away. */
  put(rows) {
    for (const [sha256, given] of rows) {
      if (given) this.marks.set(sha256, given);
      else this.marks.delete(sha256);
    }
  }

  /** Classes are called otherwise by now. */
  rename(renamed) {
    this.brush.held = renamed(this.brush.held);
  }

  #renderTiles(items) {
    const there = [...this.tiles.children];
    const wanted = items.map((item) => {
      if (!this.cells.has(item.sha256)) this.cells.set(item.sha256, this.#tile(item));
      return this.cells.get(item.sha256);
    });
    // Those that stay are not taken out: the focus would be lost.
    for (const cell of there) if (!wanted.includes(cell)) cell.remove();
    wanted.forEach((cell, i) => {
      const now = this.tiles.children[i];
      if (now !== cell) this.tiles.insertBefore(cell, now ?? null);
    });
    this.brush.follow((i) => wanted.indexOf(there[i]));
    this.brush.at = Math.min(this.brush.at, items.length - 1);
    const shown = new Set(items.map(({ sha256 }) => sha256));
    for (const sha256 of this.cells.keys()) {
      if (!shown.has(sha256)) this.cells.delete(sha256);
    }
    items.forEach((item, i) => this.#update(wanted[i], item, i));
  }

  #head(n) {
    const { queue, keys, settings } = this.page;
    const key = (name) => keys.on && keys.of(name)
      ? h("kbd", { "aria-hidden": "true" }, keyName(keys.of(name))) : null;
    return [
      h("button", { type: "button", class: "primary", id: "take", "data-focus": "take",
        disabled: n === 0, onclick: () => this.take() },
      key("take"), h("span", {}, `Take ${n} ${n === 1 ? "label" : "labels"}`)),
      h("div", { class: "others", role: "group", "aria-label": "All without a label" },
        h("span", { class: "quiet" }, "All others are"),
        queue.about.classes.map((name) => h("button", { type: "button",
          class: `choice small ${hue(queue.about.classes, name).class}`, "data-focus": `all:${name}`,
          onclick: (event) => {
            this.#rest(name);
            if (event.detail) this.focus(this.brush.at); // Space would press it again
          } }, h("span", { ...hue(queue.about.classes, name), class: "" }, name)))),
      h("label", { class: "quiet" },
        h("input", { type: "checkbox", "data-focus": "prefill", checked: settings.prefill,
          onchange: (event) => this.page.set("prefill", event.target.checked) }),
        " begin with the model's guess"),
      h("label", { class: "quiet" }, "pictures ",
        h("select", { "data-focus": "many",
          onchange: (event) => this.page.set("many", Number(event.target.value)) },
        [12, 20, 40, 60, 100].map((value) => h("option",
          { value, selected: value === settings.many }, value)))),
      h("label", { class: "quiet" }, "tiles ",
        h("select", { "data-focus": "tile",
          onchange: (event) => this.page.set("tile", Number(event.target.value)) },
        [96, 148, 220, 320].map((value) => h("option",
          { value, selected: value === settings.tile }, `${value} px`)))),
    ];
  }

  #tile(item) {
    const image = smallPicture(this.page.queue.transport, item.sha256, "");
    return h("button", { type: "button", "data-sha256": item.sha256, title: item.path }, image, h("span", {}));
  }

  #update(cell, item, i) {
    const mark = this.mark(item);
    const guessed = mark && !this.marks.has(item.sha256);
    const { class: color, "data-sign": sign } = hue(this.page.queue.about.classes, mark);
    const { selected, at } = this.brush;
    cell.className = `tile ${color} ${selected.has(i) ? "selected" : ""}`;
    cell.tabIndex = i === at ? 0 : -1;
    cell.dataset.index = i;
    if (selected.size) cell.setAttribute("aria-pressed", String(selected.has(i)));
    else cell.removeAttribute("aria-pressed");
    cell.dataset.mark = mark ?? "";
    cell.setAttribute("aria-label", `${item.path}: ${mark ? markName(mark) : "no label"}${
      guessed ? ", the model's guess" : ""}`);
    const badge = cell.lastElementChild;
    badge.className = `badge ${mark ? "set" : ""} ${guessed ? "guessed" : ""}`;
    if (sign) badge.dataset.sign = sign;
    else delete badge.dataset.sign;
    badge.textContent = mark ? `${markName(mark)}${guessed ? " ?" : ""}` : "–";
  }

  // --- what the hand does ---------------------------------------------------------------

  /** A click goes through the labels. */
  clicked(i) {
    const choices = [...this.page.queue.about.classes, null];
    const now = choices.indexOf(this.mark(this.items[i]));
    this.paint([i], choices[(now + 1) % choices.length]);
    this.flush();
  }

  /** Mark tiles; what one key marks is undone as one. */
  paint(indices, mark) {
    for (const { sha256 } of indices.map((i) => this.items[i]).filter(Boolean)) {
      const [before] = this.stroke.get(sha256) ?? [this.marks.get(sha256)];
      const given = [mark, this.page.queue.asOf];
      this.stroke.set(sha256, [before, given]);
      this.marks.set(sha256, given);
    }
    const { path } = this.items[indices[0]] ?? {};
    const name = mark ? markName(mark) : "no label";
    this.page.announce(indices.length > 1 ? `${indices.length} pictures: ${name}` : `${path}: ${name}`);
    this.render();
  }

  flush() {
    if (!this.stroke.size) return;
    this.page.history.marked([...this.stroke].map(([sha256, marks]) => [sha256, ...marks]));
    this.stroke.clear();
  }

  changed() {
    this.loupe.show(this.items[this.brush.current]);
    this.render();
  }

  #rest(name) {
    const rest = this.items.flatMap((item, i) => (this.mark(item) ? [] : [i]));
    if (rest.length) this.paint(rest, name);
    this.flush();
  }

  focus(i) {
    this.brush.at = Math.max(0, Math.min(i, this.items.length - 1));
    this.render();
    this.tiles.children[this.brush.at]?.focus();
    this.loupe.show(this.items[this.brush.current]);
  }

  /** Take what has a label; the others stay. */
  take() {
    this.flush();
    const items = this.items.filter((item) => this.mark(item));
    if (!items.length) return;
    const { queue } = this.page;
    queue.decide(items.map((item) => ({ ...item, mark: this.mark(item) })), "grid");
    this.brush.at = 0;
    this.page.announce(`${items.length} labels taken.`);
    this.render();
    this.tiles.firstElementChild?.focus?.();
  }

  /** See the brush. */
  aim() {
    return this.brush.aim();
  }

  act(name) {
    if (name === "take") {
      this.take();
      return true;
    }
    if (name === "guess") {
      this.page.set("prefill", !this.page.settings.prefill);
      return true;
    }
    if (name === "loupe") {
      this.loupe.turn();
      this.changed();
      return true;
    }
    const isMark = ["skip", "cant-tell", "not-an-image"].includes(name);
    if (!isMark && !name.startsWith("class:")) return false;
    return this.brush.hold(isMark ? `?${name}` : name.slice(6));
  }
}
