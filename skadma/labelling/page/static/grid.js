/** Many pictures at once. */

import { h, hue, markName, refill, smallPicture } from "./dom.js";
import { keyName } from "./keys.js";

export class Grid {
  /** @param {Object} page the queue, the keys, the settings, `announce` */
  constructor(page) {
    this.page = page;
    this.marks = new Map(); // by picture; null: none, though the model has a guess
    this.at = 0;
    this.cells = new Map();
    this.head = h("div", { class: "gridhead" });
    const hint = h("p", { class: "quiet hint" }, "A click goes through the labels; " +
      "a label's key labels the picture with the focus and goes on.");
    this.tiles = h("div", { class: "tiles", id: "tiles", role: "group",
      "aria-label": "Pictures" });
    this.element = h("section", { class: "grid", "aria-label": "Label many at once" },
      this.head, hint, this.tiles);
    this.tiles.addEventListener("keydown", (event) => this.#move(event));
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

  /** The label that a tile has now: given, or the model's guess where that is wanted. */
  mark(item) {
    if (this.marks.has(item.sha256)) return this.marks.get(item.sha256);
    return this.page.settings.prefill ? item.guess ?? null : null;
  }

  render() {
    const { queue, keys, settings } = this.page;
    const items = this.items;
    this.at = Math.min(this.at, Math.max(0, items.length - 1));
    const n = items.filter((item) => this.mark(item)).length;
    const { classes } = queue.about;
    refill(this.head, [n, items.length, settings, keys.on, [...keys.changed], classes],
      () => this.#head(n));
    if (items.length) {
      delete this.tiles.dataset.key;
      this.#renderTiles(items);
    } else {
      this.cells.clear();
      refill(this.tiles, ["empty", queue.state?.stage, queue.nDecided,
        queue.state?.n_skipped, queue.passed.size, queue.state?.n_images, queue.meanwhile, queue.elsewhere], () => this.page.emptiness());
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
    for (const [sha256, mark] of rows) {
      if (mark === undefined) this.marks.delete(sha256);
      else this.marks.set(sha256, mark);
    }
  }

  /** Mark pictures; undone as one. */
  #give(items, mark) {
    const rows = items.map(({ sha256 }) => [sha256, this.marks.get(sha256), mark]);
    if (!rows.length) return;
    this.put(rows.map(([sha256, , now]) => [sha256, now]));
    this.page.history.marked(rows);
  }

  /** Labels that were given, but not taken, are called as their classes are now. */
  rename(renamed) {
    for (const [sha256, mark] of this.marks) this.marks.set(sha256, renamed(mark));
  }

  #renderTiles(items) {
    const there = [...this.tiles.children];
    const wanted = items.map((item) => {
      if (!this.cells.has(item.sha256)) this.cells.set(item.sha256, this.#tile(item));
      return this.cells.get(item.sha256);
    });
    if (wanted.length !== there.length || wanted.some((cell, i) => cell !== there[i])) {
      this.tiles.replaceChildren(...wanted);
    }
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
            if (event.detail) this.#focus(this.at); // Space would press it again
          } }, h("span", { ...hue(queue.about.classes, name), class: "" }, name)))),
      h("label", { class: "quiet" },
        h("input", { type: "checkbox", "data-focus": "prefill", checked: settings.prefill,
          onchange: (event) => this.page.set("prefill", event.target.checked) }),
        " begin with the model's guess"),
      h("label", { class: "quiet" }, "pictures ",
        h("select", { "data-focus": "many",
          onchange: (event) => this.page.set("many", Number(event.target.value)) },
        [12, 20, 40, 60].map((value) => h("option",
          { value, selected: value === settings.many }, value)))),
    ];
  }

  #tile(item) {
    const image = smallPicture(this.page.queue.transport, item.sha256, "");
    return h("button", { type: "button", "data-sha256": item.sha256, title: item.path,
      onclick: () => this.#cycle(item) }, image, h("span", {}));
  }

  #update(cell, item, i) {
    const mark = this.mark(item);
    const guessed = mark && !this.marks.has(item.sha256);
    const { class: color, "data-sign": sign } = hue(this.page.queue.about.classes, mark);
    cell.className = `tile ${color}`;
    cell.tabIndex = i === this.at ? 0 : -1;
    cell.dataset.mark = mark ?? "";
    cell.setAttribute("aria-label", `${item.path}: ${mark ? markName(mark) : "no label"}${
      guessed ? ", the model's guess" : ""}`);
    const badge = cell.lastElementChild;
    badge.className = `badge ${mark ? "set" : ""} ${guessed ? "guessed" : ""}`;
    if (sign) badge.dataset.sign = sign;
    else delete badge.dataset.sign;
    badge.textContent = mark ? `${markName(mark)}${guessed ? " ?" : ""}` : "–";
  }

  #cycle(item) {
    const choices = [...this.page.queue.about.classes, null];
    const now = choices.indexOf(this.mark(item));
    this.at = this.items.findIndex(({ sha256 }) => sha256 === item.sha256);
    this.#set(item, choices[(now + 1) % choices.length]);
  }

  #set(item, mark) {
    this.#give([item], mark);
    this.page.announce(`${item.path}: ${mark ? markName(mark) : "no label"}`);
    this.render();
  }

  #rest(name) {
    this.#give(this.items.filter((item) => !this.mark(item)), name);
    this.render();
  }

  #focus(i) {
    this.at = Math.max(0, Math.min(i, this.items.length - 1));
    this.render();
    this.tiles.children[this.at]?.focus();
  }

  #move(event) {
    const columns = getComputedStyle(this.tiles).gridTemplateColumns.split(" ").length;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    const to = { Home: 0, End: this.items.length - 1 }[event.key] ?? this.at + step;
    if (Number.isNaN(to) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.#focus(to);
  }

  /** Take what has a label; the others stay. */
  take() {
    const items = this.items.filter((item) => this.mark(item));
    if (!items.length) return;
    const { queue } = this.page;
    queue.decide(items.map((item) => ({ ...item, mark: this.mark(item) })), "grid");
    this.at = 0;
    this.page.announce(`${items.length} labels taken.`);
    this.render();
    this.tiles.firstElementChild?.focus?.();
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
    const mark = name.startsWith("class:") ? name.slice(6) : `?${name}`;
    const isMark = name.startsWith("class:") || ["skip", "cant-tell", "not-an-image"].includes(name);
    const item = this.items[this.at];
    if (!isMark || !item || !this.tiles.contains(document.activeElement)) return false;
    this.#set(item, mark);
    this.#focus(this.at + 1);
    return true;
  }
}
