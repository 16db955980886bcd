/** Measure the model: pictures labelled blind, and how often the model is right. */

import { h, markName, refill } from "./dom.js";
import { Jobs } from "./jobs.js";
import { Single } from "./single.js";

const PICTURES = 50;
const SECONDS = 2.4;

/** The pictures of a test, for the view of one picture: nobody sees a guess. */
class TestQueue {
  constructor(page, changed) {
    this.page = page;
    this.changed = changed;
    this.items = [];
    this.later = new Set(); // skipped: they come last
    this.given = []; // answers of this tab, oldest first
    this.images = new Map();
    this.passed = new Set();
    this.outbox = { size: 0 };
    this.state = { n_decided: 0, n_images: 0 };
  }

  get about() {
    return this.page.queue.about;
  }

  get nDecided() {
    return this.state.n_decided;
  }

  get transport() {
    return this.page.queue.transport;
  }

  /** Take over what the server says is open. */
  take({ n, n_left, items }) {
    if (!n) { // it was ended
      this.given = [];
      this.later.clear();
    }
    const given = new Set(this.given.map(({ sha256 }) => sha256));
    const known = new Map(this.items.map((item) => [item.sha256, item]));
    const open = items.filter(({ sha256 }) => !given.has(sha256));
    const place = (item) => this.later.has(item.sha256) ? 1 : 0;
    const first = this.items.filter(({ was }) => n && was); // taken back just now
    const rest = open.filter(({ sha256 }) => !first.some((item) => item.sha256 === sha256));
    this.items = [...first, ...rest.map((item) => known.get(item.sha256) ?? item)
      .sort((a, b) => place(a) - place(b))];
    // What the server has not heard of yet is answered all the same.
    const unheard = items.length - open.length;
    this.state = { n_decided: n - n_left + unheard, n_images: n };
  }

  image(item) {
    let image = this.images.get(item.sha256);
    if (!image) {
      image = this.page.queue.makeImage(item);
      this.images.set(item.sha256, image);
      if (this.images.size > 12) this.images.delete(this.images.keys().next().value);
    }
    return image;
  }

  preload() {
    for (const item of this.items.slice(0, 4)) this.image(item);
  }

  decide([{ mark, was, ...item }]) {
    this.items = this.items.filter(({ sha256 }) => sha256 !== item.sha256);
    if (mark === "?skip") {
      this.later.add(item.sha256);
      this.items.push(item);
    } else {
      const { outbox, state } = this.page.queue;
      const target = outbox.add({ via: "keys", audit: true, marks: [
        { sha256: item.sha256, mark, before: null, as_of: state?.as_of ?? null },
      ] }, { mark, items: [{ ...item, mark }] });
      this.given.push({ ...item, mark, target });
      this.state.n_decided += 1;
    }
    this.changed();
  }

  undo() {
    const last = this.given.pop();
    if (!last) return;
    const { mark, target, ...item } = last;
    this.page.queue.outbox.add({ undo: target }, { undone: target });
    this.items = [{ ...item, was: mark }, ...this.items];
    this.state.n_decided -= 1;
    this.page.announce(`Taken back: ${markName(mark)}, ${item.path}`);
    this.changed();
  }
}

export class Test {
  /** @param {Object} page the queue, the keys, the settings, `announce` */
  constructor(page) {
    this.page = page;
    this.jobs = new Jobs(page, () => this.#news());
    this.queue = new TestQueue(page, () => this.render());
    this.history = { future: [], redo: () => {}, // a target is of the strip, and no answer here
      undo: (target) => (target ? page.history.undo(target) : this.queue.undo()) };
    this.single = new Single(Object.create(page, {
      queue: { value: this.queue },
      history: { value: this.history },
      settings: { get: () => ({ ...page.settings, guesses: false }) },
      undo: { value: () => this.queue.undo() },
      guide: { value: () => page.guide() },
      set: { value: (name, value) => page.set(name, value) },
      emptiness: { value: () => [h("p", { class: "empty" }, "One moment …")] },
    }));
    this.head = h("div", { id: "test-head" });
    this.result = h("div", { class: "result", id: "test-result" });
    this.element = h("section", { class: "test", "aria-label": "Test the model" },
      this.head, this.result, this.single.element);
  }

  get ahead() {
    return 6;
  }

  get labels() {
    return true;
  }

  open() {
    this.jobs.open();
  }

  close() {
    this.jobs.close();
  }

  #news() {
    const { jobs } = this;
    const { data } = jobs;
    this.queue.take(data);
    const { n, n_left } = data;
    const measured = jobs.of("measure");
    // Once all is answered the result comes by itself.
    const stale = measured.state === "none" ||
      (measured.state === "done" && this.measured !== n && measured.result.n_labels < n - n_left);
    if (n && !n_left && stale) {
      this.measured = n;
      jobs.start("measure");
    }
    this.render();
  }

  render() {
    const { data } = this.jobs;
    if (!data) return;
    const { n } = data;
    const { items, state } = this.queue;
    this.queue.preload();
    const busy = ["draw", "release", "measure"].find((name) => this.jobs.of(name).state === "running");
    const problems = ["draw", "release", "measure"].map((name) => this.jobs.of(name).problem).filter(Boolean);
    const left = this.page.queue.state;
    const open = left ? left.n_images - left.n_decided : 0;
    const labels = left?.n_labels ?? 0;
    refill(this.head, [n, items.length, state.n_decided, busy, problems, open, labels], () =>
      this.#head(n, items.length, busy, problems, Math.min(PICTURES, open), labels));
    const measured = this.jobs.of("measure");
    refill(this.result, [measured.result, items.length > 0, n], () =>
      measured.result && n && !items.length ? resultTable(measured.result) : []);
    this.single.element.hidden = !items.length;
    if (items.length) this.single.render();
  }

  #head(n, left, busy, problems, wanted, labels) {
    const button = (id, text, act, primary = false) => h("button", { type: "button", id,
      "data-focus": id, class: primary ? "primary" : "", disabled: Boolean(busy), onclick: act }, text);
    const minutes = Math.max(1, Math.round(wanted * SECONDS / 60));
    const about = `${wanted} pictures, about ${minutes} ${minutes === 1 ? "minute" : "minutes"}`;
    const now = { draw: "The pictures are being drawn …", measure: "The model is being measured …",
      release: "One moment …" }[busy];
    const said = [
      ...problems.map((text) => h("p", { class: "notice", role: "alert" }, text)),
      now ? h("p", { role: "status" }, now) : null,
    ];
    if (left) {
      const { n_decided } = this.queue.state;
      return [...said, h("p", { class: "quiet" }, `Test: ${n_decided} of ${n} answered. ` +
        "Label as always; the model's guess is hidden, and these labels are not trained with. " +
        "You can leave, and go on later."),
      h("progress", { max: n, value: n_decided, "aria-label": "Answered" })];
    }
    if (!labels) {
      return [...said, h("p", { class: "empty" }, "Label some pictures first: there is no model yet.")];
    }
    if (!n) {
      return [...said, h("p", {}, "How often is the model right? Pictures are drawn by chance, you " +
        "label them without its guess, and it is compared with you. They are kept apart: the model " +
        "never learns from them, until you end the test."),
      h("p", {}, wanted ? button("test-draw", `Test the model: ${about}`,
        () => this.jobs.start("draw", wanted), true) : "No picture is left for a test.")];
    }
    return [...said, h("p", { class: "others" },
      button("test-measure", "Measure the present model again", () => this.jobs.start("measure")),
      wanted ? button("test-draw", `Make it more exact: ${about}`,
        () => this.jobs.start("draw", wanted)) : null,
      button("test-release", "End the test, and let the model learn from it",
        () => this.jobs.start("release")))];
  }

  aim() {
    return this.single.aim();
  }

  act(name) {
    if (name === "guess") return true; // hidden here
    return this.queue.items.length ? this.single.act(name) : false;
  }
}

/** A share as people say it: "right 19 times of 20 (16 to 20)". */
export function times([value, low, high], of = 20) {
  return `${Math.round(of * value)} times of ${of} (${Math.floor(of * low + 1e-9)} to ` +
    `${Math.ceil(of * high - 1e-9)})`;
}

function percent(share) {
  return `${Math.round(100 * share)} %`;
}

function resultTable(found) {
  const { value, low, high, n_labels, n_population, classes, recall, confusion } = found;
  const of = high - low > 0.1 ? 20 : 100;
  const mistakes = classes.flatMap((truth, i) => classes.map((taken, k) =>
    ({ truth, taken, n: i === k ? 0 : confusion[i][k] })))
    .filter(({ n }) => n >= 0.5).sort((a, b) => b.n - a.n).slice(0, 3);
  return [
    h("h2", {}, "The model"),
    h("p", { class: "big", id: "test-value" }, `right ${times([value, low, high], of)}`),
    h("p", { class: "quiet" }, `${percent(value)} of ${n_population} pictures, from ${n_labels} ` +
      `answers; with ${percent(found.confidence)} confidence ${percent(low)} to ${percent(high)}.`),
    h("table", {}, h("caption", { class: "hidden" }, "By class"),
      h("thead", {}, h("tr", {}, ["class", "found", "answers"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, classes.map((name) => h("tr", {}, h("th", { scope: "row" }, name),
        h("td", {}, recall[name][3] ? times(recall[name]) : "no answer"),
        h("td", { class: "n" }, recall[name][3]))))),
    h("p", { id: "test-help" }, mistakes.length
      ? `Most mistakes: ${mistakes.map(({ truth, taken, n }) =>
        `${truth} taken for ${taken} (about ${Math.round(n)})`).join("; ")}. Labels of ` +
        `${[...new Set(mistakes.slice(0, 1).flatMap(({ truth, taken }) => [truth, taken]))].join(" and ")} ` +
        "would help most."
      : "No mistake was found."),
  ];
}
