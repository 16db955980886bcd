/** One picture at a time. */

import { classesIn, h, hue, isBroken, joined, markName, refill, showPicture } from "./dom.js";
import { keyName } from "./keys.js";
import { Zoom } from "./zoom.js";

const AGAIN = 1000; // milliseconds until a picture is fetched again
const LEVELS = [1, 1.5, 2.5, 0.6];

export class Single {
  /** @param {Object} page the queue, the keys, the settings, `announce` */
  constructor(page) {
    this.page = page;
    this.shown = null;
    // By picture, where it may have several: the classes that are pressed, and the event as
    // of which they are named.
    this.chosen = new Map();
    this.contrast = 0;
    this.brightness = 0;
    this.stage = h("div", { class: "stage", id: "stage", tabindex: "0",
      role: "group", "aria-label": "Picture" });
    this.zoom = new Zoom(this.stage, () => this.#view(), (way) => this.#swipe(way));
    this.swipes = h("p", { class: "quiet touch" });
    this.caption = h("p", { class: "caption" });
    this.guess = h("p", { class: "guess", id: "guess" });
    this.buttons = h("div", { class: "choices", role: "group", "aria-label": "Labels" });
    this.others = h("div", { class: "others", role: "group", "aria-label": "Other answers" });
    this.tools = h("div", { class: "others", role: "group", "aria-label": "View" });
    this.element = h("section", { class: "single", "aria-label": "Label one by one" },
      this.stage,
      h("div", { class: "under" }, this.caption, this.guess), this.swipes,
      this.buttons,
      h("div", { class: "rows" }, this.others, this.tools));
  }

  /** How many pictures this view wants to have. */
  get ahead() {
    return 6;
  }

  get labels() {
    return true;
  }

  get item() {
    return this.page.queue.items[0] ?? null;
  }

  /** Show what is to be shown now. */
  render() {
    const item = this.item;
    this.#renderButtons();
    if (item?.sha256 !== this.shown?.sha256 || (!item && !this.shown)) {
      this.#show(item);
    }
    const { guesses } = this.page.settings;
    refill(this.guess, [guesses, item?.sha256, item?.guess, item?.confidence], () => {
      if (!guesses || !item) return [];
      if (!item.guess) return ["The model has no guess yet."];
      const sure = Math.round(100 * item.confidence);
      return [`The model's guess: ${markName(item.guess)} (${sure} %)`];
    });
  }

  #show(item) {
    const { queue } = this.page;
    this.shown = item;
    this.visible = false;
    this.without = []; // what may be answered though it is not seen
    if (!this.page.settings.keepZoom && this.zoom.scale > 1) this.zoom.fit();
    this.caption.textContent = item
      ? `${item.path}${item.was ? ` (was: ${markName(item.was)})` : ""}` : "";
    if (!item) {
      refill(this.stage, ["empty", queue.state?.stage, queue.state?.read_all, queue.state?.n_images,
        queue.nDecided, queue.state?.n_skipped, queue.passed.size,
        queue.elsewhere], () => this.page.emptiness());
      return;
    }
    delete this.stage.dataset.key;
    const image = queue.image(item);
    image.alt = `Picture to label: ${item.path}`;
    this.stage.replaceChildren(image);
    this.#view();
    const ready = () => {
      if (this.shown?.sha256 !== item.sha256) return;
      this.visible = true;
      this.stage.dataset.shown = item.sha256;
    };
    if (image.complete && image.naturalWidth) ready();
    else image.ready.then(ready, (error) => this.#failed(item, image, error));
  }

  #failed(item, image, error) {
    const { images } = this.page.queue;
    const isShown = () => this.stage.contains(image);
    if (!isBroken(error)) { // the server is away for a while
      if (images.get(item.sha256) === image) images.delete(item.sha256);
      setTimeout(() => isShown() && this.#show(item), AGAIN);
    }
    if (!isShown()) return;
    this.without = isBroken(error) ? ["?skip", "?not-an-image"] : ["?skip"];
    if (!isBroken(error)) return;
    this.stage.replaceChildren(h("p", { class: "empty" },
      "This picture cannot be shown: the file is gone, was changed, or cannot be " +
      "decoded. Skip it, or say that it is not an image."));
  }

  #view() {
    const image = this.stage.querySelector("img");
    if (!image) return;
    this.zoom.show();
    image.style.filter = `contrast(${LEVELS[this.contrast]}) brightness(${LEVELS[this.brightness]})`;
    if (this.zoom.scale > 1 && this.shown && image.dataset.size !== "full") {
      const full = this.page.queue.transport.picture(this.shown.sha256, "full");
      showPicture(image, full).catch(() => {}); // the smaller one stays
      image.dataset.size = "full";
    }
    this.#renderButtons();
  }

  #renderButtons() {
    const { queue, keys, history } = this.page;
    const { guesses, keepZoom } = this.page.settings;
    const { was } = this.item ?? {};
    const press = (act) => (event) => {
      act();
      // Space would press what was clicked again, for the next picture.
      if (event.detail) this.stage.focus({ preventScroll: true });
    };
    const button = (name, text, act, { "data-sign": sign, ...extra } = {}) =>
      h("button", { type: "button", "data-focus": name, onclick: press(act),
        "aria-keyshortcuts": keys.on && keys.of(name) ? keys.of(name) : null, ...extra },
      keys.on && keys.of(name) ? h("kbd", { "aria-hidden": "true" }, keyName(keys.of(name))) : null,
      h("span", { "data-sign": sign }, text));
    const now = [keys.on, [...keys.changed], queue.about.classes];
    const chosen = this.#chosen();
    const [left, right] = this.#sides();
    refill(this.swipes, [left, right], () => [
      left ? `Swipe left: ${left}, right: ${right}; up: skip, down: undo.`
        : "Swipe up: skip, down: undo."]);
    refill(this.buttons, [now, was, chosen], () => [...queue.about.classes.map((name) => {
      const { class: color, ...sign } = hue(queue.about.classes, name);
      return button(`class:${name}`, name, () => this.answer(name),
        { class: `choice ${color}`, ...sign, "aria-pressed": chosen ? String(chosen.includes(name))
          : name === was ? "true" : null });
    }), queue.about.classes.length > 10
      ? button("find", "Find …", () => this.page.find()) : null,
    chosen ? button("take", chosen.length ? "Done" : "None of them", () => this.#done(),
      { class: "choice primary" }) : null]);
    refill(this.others, [now, history.future.length > 0], () => [
      button("skip", "Skip", () => this.answer("?skip")),
      button("cant-tell", "Can't tell", () => this.answer("?cant-tell")),
      button("not-an-image", "Not an image", () => this.answer("?not-an-image")),
      button("undo", "Undo", () => this.page.undo()),
      button("redo", "Redo", () => history.redo(), { disabled: !history.future.length }),
    ]);
    const view = [this.zoom.scale, keepZoom, this.contrast, this.brightness, guesses];
    refill(this.tools, [now, view], () => [
      button("zoom", `Zoom ${Number(this.zoom.scale.toFixed(1))}×`, () => this.act("zoom")),
      button("fit", "Fit", () => this.act("fit"), { disabled: this.zoom.scale === 1 }),
      button("keep-zoom", "Keep zoom", () => this.page.set("keepZoom", !keepZoom),
        { "aria-pressed": String(keepZoom), title: "for the next pictures" }),
      button("contrast", `Contrast ${LEVELS[this.contrast]}×`, () => this.act("contrast")),
      button("brightness", `Brightness ${LEVELS[this.brightness]}×`, () => this.act("brightness")),
      button("guess", "Guess", () => this.act("guess"), { "aria-pressed": String(guesses) }),
      button("guide", "What is what", () => this.page.guide()),
      button("screen", "Full screen", () => this.page.fullScreen()),
    ]);
  }

  /** The classes to the left and to the right, where there are two. */
  #sides() {
    const { classes, several } = this.page.queue.about;
    return classes.length === 2 && !several ? classes : [];
  }

  #swipe(way) {
    const [left, right] = this.#sides();
    if (way === "up") this.answer("?skip");
    else if (way === "down") this.page.undo();
    else if (left) this.answer(way === "left" ? left : right);
  }

  /** The classes that are pressed; null where a picture has one label. */
  #chosen() {
    const { item } = this;
    const { queue } = this.page;
    if (!queue.about.several) return null;
    const [names, asOf] = this.chosen.get(item?.sha256) ?? [classesIn(item?.was), queue.asOf];
    return names.flatMap((name) => classesIn(queue.present(name, asOf)));
  }

  /** Press a class, or no longer. */
  #toggle(name) {
    if (!this.visible || this.shown?.sha256 !== this.item?.sha256) return false;
    const before = this.#chosen();
    const on = !before.includes(name);
    const names = on ? [...before, name] : before.filter((each) => each !== name);
    this.chosen.set(this.item.sha256, [names, this.page.queue.asOf]);
    this.#renderButtons();
    this.page.announce(`${name}: ${on ? "chosen" : "not chosen"}`);
    return true;
  }

  /** What is pressed is the answer. */
  #done() {
    return this.#decide(joined(this.#chosen(), this.page.queue.about.classes));
  }

  /** Answer for the picture that is shown, or press one of its labels. */
  answer(mark) {
    return this.page.queue.about.several && !mark.startsWith("?")
      ? this.#toggle(mark) : this.#decide(mark);
  }

  /** Decide; a picture that is not seen gets no answer. */
  #decide(mark) {
    const item = this.item;
    const can = this.visible || this.without?.includes(mark);
    if (!item || !can || this.shown?.sha256 !== item.sha256) return false;
    const { queue } = this.page;
    this.chosen.delete(item.sha256);
    queue.decide([{ ...item, mark }], "keys");
    this.page.announce(`${markName(mark)}. ${queue.nDecided} of ${queue.state?.n_images}`);
    return true;
  }

  /** What answers for the picture that is shown now, as long as it is; null if none is. */
  aim() {
    const sha256 = this.visible && this.item?.sha256;
    return sha256 ? (mark) => this.item?.sha256 === sha256 && this.answer(mark) : null;
  }

  /** Do what a key or a button means; false if it means nothing here. */
  act(name) {
    if (name.startsWith("class:")) return this.answer(name.slice(6));
    if (["skip", "cant-tell", "not-an-image"].includes(name)) return this.answer(`?${name}`);
    if (name === "take" && this.page.queue.about.several) return this.#done();
    if (this.zoom.act(name)) return true;
    if (name === "contrast") this.contrast = (this.contrast + 1) % LEVELS.length;
    else if (name === "brightness") this.brightness = (this.brightness + 1) % LEVELS.length;
    else if (name === "guess") {
      this.page.set("guesses", !this.page.settings.guesses);
      return true;
    } else return false;
    this.#view();
    return true;
  }
}
