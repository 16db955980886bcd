/** The pictures to come, where things stand, and the decisions about them. */

import { classesIn, joined, own, showPicture } from "./dom.js";
import { Outbox } from "./outbox.js";

const EVERY = 1500;
const PRELOADED = 5;

/** By how many a step changes the number of pictures that have an answer. */
function change(items) {
  const counts = (mark) => Number(Boolean(mark) && mark !== "?skip");
  return items.reduce((sum, { mark, before }) => sum + counts(mark) - counts(before), 0);
}

export class ImageQueue extends EventTarget {
  /**
   * @param {{call: Function, picture: Function}} transport
   * @param {Object} about what the server says of itself
   */
  constructor(transport, about) {
    super();
    this.transport = transport;
    this.about = about;
    this.tab = crypto.randomUUID();
    this.items = [];
    this.state = null;
    this.names = []; // of the classes, as this page heard of them, oldest first
    this.ahead = 6;
    this.passed = new Set(); // skipped once more, when only skipped ones were left
    this.images = new Map();
    this.returned = new Map(); // undone pictures, and when the log had it
    this.outbox = new Outbox(transport, about.id);
    this.outbox.addEventListener("saved", ({ detail }) => this.#saved(detail));
    this.outbox.addEventListener("notTaken", ({ detail }) =>
      this.#tell("notice", { text: `Not taken: ${detail.message}` }),
    );
    this.outbox.addEventListener("refused", () => this.#tell("change", {}));
    this.outbox.addEventListener("unreachable", ({ detail }) =>
      this.#unreachable(detail),
    );
    this.reached = true;
    window.addEventListener("pagehide", () => {
      const nothing = { tab: this.tab, have: [], want: 0 };
      this.transport.call("sync", nothing, true).catch(() => {});
    });
    this.#loop();
  }

  /**
   * Decide about pictures, in one step that is undone as one.
   * @param {Object[]} marks items with the mark that each gets
   * @param {"keys"|"grid"|"list"|"gallery"} via
   * @param {boolean} confirm the marks are those that hold, and stand
   */
  decide(marks, via, confirm = false) {
    if (!marks.length) return;
    if (marks.every(({ mark, before }) => mark === "?skip" && before === "?skip")) {
      for (const { sha256 } of marks) this.passed.add(sha256);
      this.items = this.items.filter(({ sha256 }) => !this.passed.has(sha256));
      this.#changed();
      return;
    }
    const decided = new Map(marks.map((mark) => [mark.sha256, mark]));
    const items = marks.map(({ sha256, path, before, guess, confidence, mark }) => ({
      sha256, path, before, guess, confidence, mark,
    }));
    this.items = this.items.filter((item) => !decided.has(item.sha256));
    const shown = { mark: marks[0].mark, items, change: change(items) };
    const operation = {
      via, confirm,
      marks: marks.map(({ sha256, mark, before }) => ({
        sha256, mark, before: before ?? null, as_of: this.state ? this.asOf : null,
      })),
    };
    const target = this.outbox.add(operation, shown);
    this.#tell("decided", { target, marks: items, as_of: this.asOf, via, confirm });
    this.#changed();
  }

  /**
   * Take a decision of the strip back; return it. `order`: of its pictures, if known;
   * `again`: whether they are asked again, which those were not that nobody was asked.
   */
  undo(target, order = [], again = true) {
    const entry = this.strip().find((each) => each.target === target);
    if (!entry) return null;
    const { items } = entry;
    this.outbox.add({ undo: target }, { undone: target, change: -change(items) });
    const place = new Map(order.map(({ sha256 }, i) => [sha256, i]));
    entry.items.sort((a, b) => place.get(a.sha256) - place.get(b.sha256) || 0);
    const back = again
      ? entry.items.filter(({ before }) => !before || before === "?skip") : [];
    const there = new Set(back.map((item) => item.sha256));
    for (const sha256 of there) this.returned.set(sha256, Infinity);
    this.items = [...back.map(({ mark, ...item }) => ({ ...item, was: mark })),
      ...this.items.filter((item) => !there.has(item.sha256))];
    this.#tell("undone", { entry });
    this.#changed();
    return entry;
  }

  /** Add, rename or merge classes, or note something about one. */
  async changeClasses(change) {
    const as_of = this.state.as_of;
    const { event, ...state } = await this.transport.call("classes", { ...change, as_of });
    this.#stands(state);
    this.savedAt = performance.now();
    this.#tell("classesChanged", { change, target: `event-${event}` });
    this.#changed();
  }

  /** Take a change of the classes back, after what is on its way to the log. */
  undoChange(target) {
    this.outbox.add({ undo: target });
    this.#changed();
  }

  /** The event as of which the page names classes. */
  get asOf() {
    return this.state?.as_of ?? 0;
  }

  /**
   * What a label is called now that was given as of an event; null where a class of it is
   * none any more. One that was merged has its own name again once that is taken back.
   */
  present(label, asOf) {
    const { names } = this;
    const now = (name, k) => {
      const id = names[k]?.ids.get(name);
      if (id === undefined) return name; // a mark such as "?skip"
      const called = names.map((each) => each.byId.get(id));
      if (called.at(-1) !== undefined) return called.at(-1);
      const end = called.indexOf(undefined, k);
      const into = own(names[end].former, called[end - 1]);
      return into === undefined ? null : now(into, end);
    };
    const then = Math.max(0, names.findLastIndex((each) => each.as_of <= asOf));
    if (!this.about.several || !classesIn(label).length) return now(label, then);
    const given = classesIn(label).map((name) => now(name, then));
    return given.includes(null) ? null : joined(given, this.about.classes);
  }

  /** How many pictures have an answer, with those that are being saved. */
  get nDecided() {
    const { n_decided = 0, n_images = 0 } = this.state ?? {};
    // The log may have one whose answer is still on its way.
    const there = new Set((this.state?.recent ?? []).map(({ target }) => target));
    const waiting = this.outbox.entries.filter(({ operation }) => !there.has(operation.id))
      .map(({ shown }) => shown?.change ?? 0);
    return Math.max(0, Math.min(n_images, waiting.reduce((sum, n) => sum + n, n_decided)));
  }

  /** The last ten decisions, newest first; `saved` once they are on the disk. */
  strip() {
    const pending = this.outbox.entries;
    const undone = new Set(pending.map(({ operation }) => operation.undo));
    const waiting = pending
      .filter(({ operation }) => operation.marks && !operation.audit && !undone.has(operation.id))
      .map(({ operation, shown }) => ({ ...shown, target: operation.id, saved: false }))
      .reverse();
    const there = new Set(waiting.map((entry) => entry.target));
    const saved = (this.state?.recent ?? [])
      .filter(({ target }) => !undone.has(target) && !there.has(target))
      .map((entry) => ({ ...entry, saved: true }));
    return [...waiting, ...saved].slice(0, 10);
  }

  /** The <img> of an item, loading or loaded. */
  image(item) {
    const known = this.images.get(item.sha256);
    if (known) return known;
    const image = this.makeImage(item);
    this.images.set(item.sha256, image);
    return image;
  }

  makeImage(item) {
    const image = new Image();
    image.decoding = "sync";
    image.alt = item.path || "picture";
    image.ready = showPicture(image, this.transport.picture(item.sha256, "view"));
    image.ready.catch(() => {});
    return image;
  }

  /** Look for more pictures now. */
  async sync() {
    const have = this.items.map((item) => item.sha256);
    // What is decided but not yet safe must not be handed out again.
    const marks = this.outbox.entries.flatMap(({ operation }) => operation.marks ?? []);
    const unsaved = marks.map(({ sha256 }) => sha256);
    const want = Math.max(0, this.ahead - have.length);
    const began = performance.now();
    let answer;
    try {
      answer = await this.transport.call("sync", {
        tab: this.tab,
        have: [...new Set([...this.passed, ...have, ...unsaved])].slice(-500),
        want,
      });
    } catch (error) {
      this.#unreachable(error);
      return;
    }
    this.#reachable();
    const { items, stale, guesses, elsewhere, ...state } = answer;
    if (state.as_of < this.state?.as_of && this.#differs(state)) return; // former names
    this.elsewhere = elsewhere; // pictures that other tabs hold
    if (!(this.savedAt > began)) this.#stands(state);
    const waiting = this.outbox.entries.flatMap(({ operation }) => operation.marks ?? []);
    const gone = new Set([...stale, ...waiting.map(({ sha256 }) => sha256)]);
    // An answer from before an undoing does not know of it.
    this.items = this.items.filter(
      ({ sha256 }) => !gone.has(sha256) || this.returned.get(sha256) >= began,
    );
    // What was handed out before may have a newer guess.
    this.items = this.items.map((item) => {
      const [guess, confidence] = guesses[item.sha256] ?? [item.guess, item.confidence];
      return guess === item.guess && confidence === item.confidence
        ? item : { ...item, guess, confidence };
    });
    const there = new Set(this.items.map(({ sha256 }) => sha256));
    const fresh = items.filter(({ sha256 }) => !there.has(sha256) && !gone.has(sha256));
    this.items.push(...fresh);
    this.#changed();
  }

  async #loop() {
    for (;;) {
      await this.sync();
      await this.#pause(this.items.length < 4 ? EVERY / 4 : EVERY);
    }
  }

  #pause(milliseconds) {
    return new Promise((resolve) => {
      this.hurry = resolve;
      setTimeout(resolve, milliseconds);
    });
  }

  #saved({ answer, batch }) {
    this.#reachable();
    const { outcomes, ...state } = answer;
    this.#stands(state);
    this.savedAt = performance.now();
    if (!this.outbox.entries.some(({ operation }) => operation.undo)) {
      for (const [sha256, at] of this.returned) {
        if (at === Infinity) this.returned.set(sha256, this.savedAt);
      }
    }
    for (const outcome of outcomes) {
      for (const { path, reason, holds, by } of outcome.refused) {
        const now = holds ? ` It is ${holds}${by ? `, says ${by}` : ""}.` : "";
        this.#tell("notice", { text: `${path && `${path}: `}${reason}${now}` });
      }
    }
    this.#tell("saved", { n: batch.length });
    this.#changed();
  }

  #differs({ classes, class_ids }) {
    const now = [this.state?.class_ids ?? class_ids, this.about.classes];
    return JSON.stringify([class_ids, classes]) !== JSON.stringify(now);
  }

  /** Take over where things stand; the classes may be others than before. */
  #stands(state) {
    const { as_of, classes, class_ids, former } = state;
    const differs = this.#differs(state);
    const before = this.asOf;
    this.state = state;
    if (!differs && this.names.length) return;
    const ids = classes.map((name, i) => [name, JSON.stringify(class_ids[i])]);
    this.names.push({ as_of, former, ids: new Map(ids),
      byId: new Map(ids.map(([name, id]) => [id, name])) });
    if (!differs) return;
    this.about = { ...this.about, classes, former };
    const renamed = (label) => this.present(label, before);
    this.items = this.items.map((item) => ({
      ...item, guess: renamed(item.guess), before: renamed(item.before),
      was: renamed(item.was),
    }));
    this.#tell("classes", { classes, former, renamed });
  }

  #reachable() {
    if (!this.reached) this.#tell("reachable", {});
    this.reached = true;
  }

  #unreachable({ status, message }) {
    this.reached = false;
    this.#tell("unreachable", { status, message });
  }

  #changed() {
    const kept = new Set();
    for (const item of this.items.slice(0, PRELOADED + 1)) {
      kept.add(item.sha256);
      this.image(item);
    }
    for (const item of this.items) kept.add(item.sha256);
    for (const sha256 of this.images.keys()) {
      if (!kept.has(sha256)) this.images.delete(sha256);
    }
    if (this.items.length < this.ahead - 1) this.hurry?.();
    this.#tell("change", {});
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
