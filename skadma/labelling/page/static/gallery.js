/** Every picture: found, compared, and labelled where it is. */

import { Brush, Loupe } from "./brush.js";
import { h, hue, markName, refill } from "./dom.js";
import { keyName } from "./keys.js";
import { PoolMap } from "./map.js";
import { Tiles } from "./tiles.js";

const AT_ONCE = 500; // marks in an operation
const ROWS = 2000; // in a request
const EVERY = 1500; // milliseconds until something is asked for again
const ORDERS = [["name", "by name"], ["sure", "most sure first"], ["unsure", "least sure first"]];
const SIZES = [96, 148, 220, 320];

export class Gallery {
  /** @param {Object} page the queue, the keys, the settings, `announce` */
  constructor(page) {
    this.page = page;
    this.rows = []; // of all pictures, in the pool's order
    this.bySha = new Map();
    this.list = []; // the rows that are listed
    this.query = { which: "all", who: "", text: "", order: "name" };
    this.like = null; // { row, ranks }
    this.area = null; // rows of an area of the map
    this.painted = new Map(); // by a key that is held
    this.pool = null; // which pictures the rows are; null until the server told
    this.model = 0; // as of which event the rows have guesses
    this.news = null; // guesses of a newer one
    this.undone = 0; // steps
    this.head = h("div", { class: "gridhead" });
    this.find = h("input", { type: "search", id: "find", size: 14, oninput: () => {
      this.query.text = this.find.value.trim().toLowerCase();
      this.choose();
    } });
    this.controls = h("div", { class: "controls" });
    this.head.append(h("label", { class: "quiet" }, "find ", this.find), this.controls);
    this.bar = h("div", { class: "gridhead" });
    this.tiles = new Tiles({ id: "gallery", role: "group", "aria-label": "Pictures",
      tabindex: "-1" }, this, page.queue.transport);
    this.brush = new Brush(this.tiles.element, this);
    this.loupe = new Loupe(page.queue.transport);
    this.map = new PoolMap(page, (rows) => {
      this.area = rows;
      this.choose();
    });
    this.element = h("section", { class: "gallery", "aria-label": "Gallery" },
      this.head, this.bar, this.map.element, this.tiles.element, this.loupe.element);
    page.queue.addEventListener("decided", ({ detail }) => this.#hold(detail.marks));
    page.queue.addEventListener("undone", ({ detail }) => this.#undone(detail.entry));
  }

  get ahead() {
    return 6;
  }

  get labels() {
    return true;
  }

  get n() {
    return this.list.length;
  }

  get columns() {
    return this.tiles.columns;
  }

  // --- what there is --------------------------------------------------------------------

  open() {
    this.isOpen = true;
    this.pool = null;
    this.#load();
    this.#ask();
  }

  close() {
    this.isOpen = false;
    this.brush.release();
  }

  #call(name, body) {
    return this.page.queue.transport.call(name, body);
  }

  /**
   * Read the rows of all pictures; those that are there already are brought up to date.
   * No guess is shown meanwhile: an audit may have drawn the picture.
   */
  async #load() {
    const turn = (this.loading = {});
    const { queue } = this.page;
    const wasThere = this.pool !== null; // then the list stays, but for what is gone
    let { about } = queue;
    let rows = [];
    let pool = null;
    this.pool = null;
    try {
      for (;;) {
        const answer = await this.#call("gallery", { start: rows.length, n: ROWS, contents: [] });
        if (this.loading !== turn) return;
        if (pool !== answer.pool || about !== queue.about) { // other pictures or names by now
          ({ pool } = answer);
          if (rows.length || about !== queue.about) {
            ({ about } = queue);
            rows = [];
            continue;
          }
        }
        for (const row of answer.rows) rows.push(this.#take(row, answer.as_of));
        if (!wasThere && this.rows.length < rows.length) {
          this.rows = rows;
          this.choose(false);
        }
        if (answer.rows.length < ROWS) break;
      }
    } catch (error) {
      if (this.loading === turn) this.loading = null;
      this.page.unreachable(error);
      return;
    }
    Object.assign(this, { rows, pool, loading: null });
    const there = new Set(rows);
    for (const row of this.bySha.values()) if (!there.has(row)) this.#forget(row);
    this.area = this.area?.filter((row) => there.has(row)) ?? null;
    if (this.news?.pool !== pool) this.news = null;
    this.map.take(rows, pool);
    this.#pending();
    if (!wasThere) {
      this.choose(false);
      return;
    }
    if (!this.list.every((row) => there.has(row))) {
      this.list = this.list.filter((row) => there.has(row));
      this.brush.selected.clear();
      this.tiles.reset(this.n, false);
    }
    this.render();
  }

  /** A picture that is no longer listed keeps no guess. */
  #forget(row) {
    Object.assign(row, { guess: null, confidence: null });
    this.bySha.delete(row.sha256);
  }

  #take([sha256, path, mark, by], asOf) {
    let row = this.bySha.get(sha256);
    if (!row) this.bySha.set(sha256, (row = { sha256, guess: null, confidence: null }));
    return Object.assign(row, { path, mark, by, asOf });
  }

  /** What was decided and is not yet saved holds as well. */
  #pending() {
    const { entries } = this.page.queue.outbox;
    this.#hold(entries.flatMap(({ operation }) => operation.marks ?? []));
    this.#hold([...this.painted.values()]);
  }

  /** Ask anew about the pictures that are seen, once something was recorded. */
  async #refresh() {
    const { queue } = this.page;
    const asOf = queue.state?.as_of;
    if (this.refreshing || this.loading || !this.isOpen || !asOf) return;
    const contents = [...this.tiles.cells.values()].map((cell) => cell.dataset.sha256)
      .filter((sha256) => this.bySha.get(sha256)?.asOf < asOf).slice(0, AT_ONCE);
    // What is being taken back, the server does not know yet.
    if (!contents.length || queue.outbox.entries.some(({ operation }) => operation.undo)) return;
    this.refreshing = true;
    const { undone } = this;
    const { about } = queue;
    try {
      const answer = await this.#call("gallery", { start: 0, n: 0, contents });
      if (this.undone === undone && about === queue.about) {
        for (const row of answer.rows) this.#take(row, Math.max(answer.as_of, asOf));
        this.#pending();
        this.tiles.render();
      }
      if (answer.pool !== this.pool && !this.loading) this.#load();
    } catch {
      // Asked again with the next change.
    }
    this.refreshing = false;
  }

  /** Ask for guesses of a newer model, while they are wanted. */
  async #ask() {
    if (this.asking) return;
    this.asking = true;
    while (this.isOpen && this.page.settings.prefill) {
      try {
        const have = this.news?.guesses_as_of ?? this.model;
        const { about } = this.page.queue;
        const answer = await this.#call("overview", { kind: "guesses", have, contents: [] });
        if (answer.pool !== this.pool) {
          if (!this.loading) this.#load();
        } else if (answer.values && about === this.page.queue.about) {
          this.news = answer;
          if (!this.model) this.choose(false);
          this.render();
        }
      } catch {
        // The page says that the server is not there.
      }
      await new Promise((resolve) => setTimeout(resolve, EVERY));
    }
    this.asking = false;
  }

  #takeNews() {
    if (!this.news || this.news.pool !== this.pool) return;
    const { values, guesses_as_of, n_known } = this.news;
    this.news = null;
    Object.assign(this, { model: guesses_as_of, nKnown: n_known });
    this.rows.forEach((row, i) => { [row.guess, row.confidence] = values[i] ?? [null, null]; });
  }

  // --- what is listed -------------------------------------------------------------------

  /** Make the list anew; until then nothing moves below the hand. */
  choose(top = true) {
    this.#takeNews();
    const { which, who, text, order } = this.query;
    const [kind, name] = [which.split(":", 1)[0], which.slice(which.indexOf(":") + 1)];
    const kinds = {
      all: () => true,
      undecided: (row) => !row.mark,
      is: (row) => row.mark === name,
      likely: (row) => !row.mark && row.guess === name,
    };
    const rows = this.area ?? this.rows;
    this.list = rows.filter((row) => kinds[kind](row) && (!who || row.by === who) &&
      (!text || row.path.toLowerCase().includes(text)) &&
      (!this.like || this.like.ranks.has(row.sha256)));
    if (this.like) {
      const { ranks } = this.like;
      this.list.sort((a, b) => ranks.get(a.sha256) - ranks.get(b.sha256));
    } else if (order !== "name") {
      const sign = order === "unsure" ? 1 : -1;
      const none = order === "unsure" ? 2 : -1;
      this.list.sort((a, b) => sign * ((a.confidence ?? none) - (b.confidence ?? none)));
    }
    this.brush.selected.clear();
    if (top) this.brush.at = 0;
    this.tiles.reset(this.n, top);
    this.render();
  }

  /** List the pictures that look like one. */
  async #alike(row) {
    this.page.announce("Looking for similar pictures …");
    const contents = [row.sha256];
    for (;;) {
      const { values } = await this.#call("overview", { kind: "similar", have: 0, contents });
      if (values) {
        this.like = { row, ranks: new Map(values.map((sha256, i) => [sha256, i])) };
        this.choose();
        this.page.announce(`${this.n} pictures like ${row.path}`);
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, EVERY / 4));
    }
  }

  // --- what is seen ---------------------------------------------------------------------

  render() {
    const { queue, keys, settings } = this.page;
    const { classes } = queue.about;
    this.#refresh();
    const likely = new Map(classes.map((name) => [name, 0]));
    const people = new Set();
    for (const { mark, guess, by } of this.rows) {
      if (mark && by) people.add(by);
      else if (!mark && likely.has(guess)) likely.set(guess, likely.get(guess) + 1);
    }
    const { which, who, order } = this.query;
    refill(this.controls, [classes, settings.prefill, [...likely], [...people], which, who,
      order, this.tiles.size, this.like?.row.path, this.area?.length, this.map.isOpen],
    () => this.#controls(classes, likely, people));
    const { size } = this.brush.selected;
    const n = this.#toTake().length;
    refill(this.bar, [classes, size, n, this.n, this.rows.length, this.query.which, this.nKnown,
      this.news?.n_known, keys.on, [...keys.changed], settings.prefill],
    () => this.#bar(classes, size, n));
    this.tiles.render();
  }

  #select(label, focus, choices, now, change) {
    return h("label", { class: "quiet" }, `${label} `, h("select", { "data-focus": focus,
      id: focus, onchange: (event) => change(event.target.value) },
    choices.map(([value, text]) => h("option", { value, selected: value === now }, text))));
  }

  #set(name) {
    return (value) => {
      this.query = { ...this.query, [name]: value };
      if (name === "which" && value.startsWith("likely:")) this.query.order = "sure";
      this.choose();
    };
  }

  #controls(classes, likely, people) {
    const { settings } = this.page;
    const marks = [...classes, "?skip", "?cant-tell", "?not-an-image"];
    const which = [["all", "all"], ["undecided", "without a label"],
      ...(settings.prefill ? [...likely].map(([name, n]) =>
        [`likely:${name}`, `likely ${name} (${n})`]) : []),
      ...marks.map((mark) => [`is:${mark}`, markName(mark)])];
    const chip = (text, focus, clear) => h("button", { type: "button", "data-focus": focus,
      onclick: () => { clear(); this.choose(); } }, `${text} ×`);
    return [
      this.#select("show", "which", which, this.query.which, this.#set("which")),
      people.size > 1 || this.query.who ? this.#select("by", "who",
        [["", "anybody"], ...[...people].sort().map((name) => [name, name])],
        this.query.who, this.#set("who")) : null,
      this.#select("order", "order", settings.prefill ? ORDERS : ORDERS.slice(0, 1),
        this.query.order, this.#set("order")),
      h("label", { class: "quiet" }, h("input", { type: "checkbox", "data-focus": "prefill",
        checked: settings.prefill, onchange: (event) => this.#guesses(event.target.checked) }),
      " the model's guess"),
      this.#select("tiles", "size", SIZES.map((size) => [String(size), `${size} px`]),
        String(this.tiles.size), (value) => {
          this.tiles.size = Number(value);
          this.tiles.reset(this.n);
          this.render();
        }),
      h("button", { type: "button", id: "map-turn", "data-focus": "map",
        "aria-pressed": String(this.map.isOpen), onclick: () => {
          this.map.turn();
          this.map.take(this.rows, this.pool);
          this.area = null;
          this.choose();
        } }, "Map"),
      this.like ? chip(`like ${this.like.row.path}`, "like", () => { this.like = null; }) : null,
      this.area ? chip(`${this.area.length} on the map`, "area", () => { this.area = null; }) : null,
    ];
  }

  #bar(classes, size, n) {
    const { keys } = this.page;
    const key = (name) => keys.on && keys.of(name)
      ? h("kbd", { "aria-hidden": "true" }, keyName(keys.of(name))) : null;
    const { which } = this.query;
    const take = which.startsWith("likely:")
      ? `All ${n} that are seen are ${which.slice(7)}` : `Take ${n} guesses`;
    const newer = this.news && this.model
      ? h("button", { type: "button", "data-focus": "news", onclick: () => this.choose() },
        `Newer guesses: of ${this.news.n_known} labels`) : null;
    return [
      h("p", { class: "quiet", id: "gallery-sums" }, size ? `${size} selected`
        : `${this.n} of ${this.rows.length} pictures`),
      n ? h("button", { type: "button", class: "primary", id: "take-guesses",
        "data-focus": "take", onclick: () => this.take() }, key("take"), h("span", {}, take)) : null,
      size ? h("div", { class: "others", role: "group", "aria-label": "Label the selected ones" },
        classes.map((name) => h("button", { type: "button",
          class: `choice small ${hue(classes, name).class}`, "data-focus": `all:${name}`, onclick: () => {
            this.paint([...this.brush.selected], name);
            this.flush();
            this.brush.select([]);
          } }, key(`class:${name}`), h("span", { ...hue(classes, name), class: "" }, name)))) : null,
      newer,
      this.page.settings.prefill && !this.model
        ? h("p", { class: "quiet" }, "The model has no guess yet.") : null,
    ];
  }

  #guesses(on) {
    this.page.set("prefill", on);
    if (!on && (this.query.which.startsWith("likely:") || this.query.order !== "name")) {
      this.query = { ...this.query, which: "all", order: "name" };
      this.choose();
    }
    this.#ask();
  }

  sha256(i) {
    return this.list[i].sha256;
  }

  tile(i) {
    return { title: this.list[i].path };
  }

  update(cell, i) {
    const { mark, guess, path } = this.list[i];
    const guessed = !mark && this.page.settings.prefill && this.pool !== null && guess;
    const name = mark ?? (guessed || null);
    const { class: color, "data-sign": sign } = hue(this.page.queue.about.classes, name);
    const selected = this.brush.selected.has(i);
    const [first, end] = this.tiles.seen;
    const isCut = guessed && (i < first || i >= end); // and not among those that are seen
    cell.className = `tile ${color} ${selected ? "selected" : ""} ${
      isCut ? "cut" : ""}`;
    cell.tabIndex = i === Math.min(this.brush.at, this.n - 1) ? 0 : -1;
    cell.dataset.mark = mark ?? "";
    cell.setAttribute("aria-pressed", String(selected));
    cell.setAttribute("aria-label", `${path}: ${name ? markName(name) : "no label"}${
      guessed ? ", the model's guess" : ""}`);
    const badge = cell.lastElementChild;
    badge.className = `badge ${name ? "set" : ""} ${guessed ? "guessed" : ""}`;
    if (sign) badge.dataset.sign = sign;
    else delete badge.dataset.sign;
    badge.textContent = name ? `${markName(name)}${guessed ? " ?" : ""}` : "–";
  }

  // --- what the hand does ---------------------------------------------------------------

  changed() {
    this.loupe.show(this.list[this.brush.current]);
    this.render();
  }

  clicked(i) {
    this.brush.select([i]);
    this.tiles.focus(i);
  }

  focus(i) {
    this.brush.at = i;
    this.tiles.focus(i);
    this.changed();
  }

  /** Give tiles a mark; they are saved in one step when the hand is done. */
  paint(indices, mark) {
    for (const i of indices) {
      const row = this.list[i];
      if (!row || row.mark === mark) continue;
      const painted = this.painted.get(row.sha256);
      this.painted.set(row.sha256, { ...row, before: painted ? painted.before : row.mark, mark });
      this.#hold([{ ...row, mark }]);
    }
    const [first] = indices;
    this.page.announce(indices.length === 1 ? `${this.list[first].path}: ${markName(mark)}`
      : `${indices.length} pictures: ${markName(mark)}`);
    this.tiles.render();
  }

  flush() {
    const marks = [...this.painted.values()];
    this.painted.clear();
    for (let i = 0; i < marks.length; i += AT_ONCE) {
      this.page.queue.decide(marks.slice(i, i + AT_ONCE), "gallery");
    }
  }

  #toTake() {
    if (!this.page.settings.prefill || this.pool === null) return [];
    const { selected } = this.brush;
    const [first, end] = this.tiles.seen;
    const meant = selected.size ? [...selected]
      : Array.from({ length: Math.max(0, end - first) }, (_, k) => first + k);
    return meant.filter((i) => this.list[i] && !this.list[i].mark && this.list[i].guess);
  }

  /** Take the guesses that are seen, or selected, in one step; then the next ones. */
  take() {
    const indices = this.#toTake();
    if (!indices.length) return;
    for (const i of indices) this.paint([i], this.list[i].guess);
    this.flush();
    this.page.announce(`${indices.length} labels taken.`);
    if (!this.query.which.startsWith("likely:")) {
      this.brush.select([]);
      return;
    }
    this.choose();
    if (this.n) return;
    const left = this.rows.filter((row) => !row.mark && row.guess);
    if (left.length) this.#set("which")(`likely:${left[0].guess}`);
  }

  #hold(marks) {
    const { about, state } = this.page.queue;
    for (const { sha256, mark } of marks) {
      const row = this.bySha.get(sha256);
      if (row) Object.assign(row, { mark, by: about.who, asOf: state?.as_of ?? 0 });
    }
  }

  /** Classes are called otherwise by now. */
  rename(renamed) {
    const asOf = this.page.queue.state.as_of;
    for (const row of this.bySha.values()) {
      row.guess = renamed(row.guess);
      if (row.asOf < asOf) row.mark = renamed(row.mark); // a newer one has its name
    }
    for (const [sha256, row] of this.painted) {
      this.painted.set(sha256, { ...row, mark: renamed(row.mark), before: renamed(row.before) });
    }
    if (this.news) {
      this.news.values = this.news.values.map((guess) => guess && [renamed(guess[0]), guess[1]]);
    }
    this.brush.held = renamed(this.brush.held);
    const [, kind, name] = /^(is|likely):(.*)$/s.exec(this.query.which) ?? [];
    if (!kind) return;
    const now = renamed(name);
    this.query.which = now === null ? "all" : `${kind}:${now}`;
  }

  #undone({ items }) {
    this.undone += 1;
    for (const { sha256, before } of items) {
      const row = this.bySha.get(sha256);
      if (row) Object.assign(row, { mark: before ?? null, asOf: this.page.queue.state?.as_of ?? 0 });
    }
    if (!this.isOpen) return;
    const { which } = this.query;
    if (which.startsWith("likely:") || which === "undecided") this.choose(false);
    else this.tiles.render();
  }

  /** See the brush. */
  aim() {
    return this.brush.aim();
  }

  act(name) {
    if (name === "take") this.take();
    else if (name === "guess") this.#guesses(!this.page.settings.prefill);
    else if (name === "loupe") {
      this.loupe.turn();
      this.changed();
    } else if (name === "like") {
      const row = this.list[this.brush.current];
      if (!row) return false;
      this.#alike(row).catch((error) => this.page.notice(error.message));
    } else {
      const isMark = ["skip", "cant-tell", "not-an-image"].includes(name);
      if (!isMark && !name.startsWith("class:")) return false;
      return this.brush.hold(isMark ? `?${name}` : name.slice(6));
    }
    return true;
  }
}
