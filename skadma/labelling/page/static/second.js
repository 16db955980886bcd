/** Labels that may be wrong, one at a time: a key keeps one, a key changes it. */

import { h, hue, isBroken, markName, refill, showPicture } from "./dom.js";
import { keyName } from "./keys.js";
import { Zoom } from "./zoom.js";

const EVERY = 5000;
const AGAIN = 1000; // milliseconds until a picture is fetched again

/** What a label would be changed to; null where nobody names another class. */
function instead({ before, suggested, others, consensus }) {
  if (consensus && consensus !== before) return consensus;
  if (suggested && suggested !== before) return suggested;
  return others.map(([, mark]) => mark).find((mark) => mark !== before) ?? null;
}

export class SecondLook {
  /** @param {Object} page the queue, the keys, `announce` */
  constructor(page) {
    this.page = page;
    this.items = null; // until the server told
    this.done = new Map(); // decided here, by picture
    this.later = new Set();
    this.stage = h("div", { class: "stage", id: "doubted", tabindex: "0", role: "group",
      "aria-label": "Picture" });
    this.zoom = new Zoom(this.stage, () => {}, (way) => (way === "down" ? page.undo()
      : this.act({ left: "keep", right: "change", up: "skip" }[way])));
    this.question = h("p", { class: "question", id: "question" });
    this.choices = h("div", { class: "choices", role: "group", "aria-label": "Keep or change" });
    this.others = h("div", { class: "others", role: "group", "aria-label": "Other labels" });
    this.element = h("section", { class: "single", "aria-label": "Second look" },
      this.stage, this.question, this.choices, h("div", { class: "rows" }, this.others));
    page.queue.addEventListener("undone", ({ detail }) => this.#back(detail.entry.items));
  }

  get ahead() {
    return 6;
  }

  get labels() {
    return true;
  }

  get item() {
    return this.items?.[0] ?? null;
  }

  async open() {
    const turn = (this.turn = {});
    while (this.turn === turn) {
      try {
        const { queue } = this.page;
        const { about } = queue;
        const { suspects } = await queue.transport.call("progress");
        if (this.turn !== turn) return;
        if (about === queue.about) this.#take(suspects.items);
      } catch {
        // The page says that the server cannot be reached.
      }
      await new Promise((resolve) => setTimeout(resolve, EVERY));
    }
  }

  close() {
    this.turn = null;
  }

  /** Take a new list over; the picture that is being looked at stays. */
  #take(items) {
    const wanted = items.filter((item) => !this.done.has(item.sha256) && instead(item));
    const order = ({ sha256 }) =>
      sha256 === this.item?.sha256 ? 0 : this.later.has(sha256) ? 2 : 1;
    this.items = wanted.sort((a, b) => order(a) - order(b));
    this.render();
  }

  #back(undone) {
    const back = undone.map(({ sha256 }) => this.done.get(sha256)).filter(Boolean);
    for (const { sha256 } of back) this.done.delete(sha256);
    this.items = [...back, ...(this.items ?? [])];
  }

  /** Classes are called otherwise by now. */
  rename(renamed) {
    const now = (item) => ({ ...item, before: renamed(item.before),
      suggested: renamed(item.suggested), consensus: renamed(item.consensus),
      others: item.others.map(([who, mark]) => [who, renamed(mark)]) });
    this.items = this.items?.map(now) ?? null;
    for (const [sha256, item] of this.done) this.done.set(sha256, now(item));
  }

  render() {
    const { item } = this;
    const { queue, keys } = this.page;
    const { classes } = queue.about;
    if (item?.sha256 !== this.shown?.sha256 || !item) this.#show(item);
    const key = (name) => keys.on && keys.of(name)
      ? h("kbd", { "aria-hidden": "true" }, keyName(keys.of(name))) : null;
    const button = (name, text, act, mark = null) => {
      const { class: color, ...sign } = hue(classes, mark);
      return h("button", { type: "button", class: `choice ${color}`, "data-focus": name,
        onclick: (event) => {
          act();
          if (event.detail) this.stage.focus({ preventScroll: true });
        } }, key(name), h("span", sign, text));
    };
    refill(this.question, [item, this.items?.length], () => (item ? this.#asked(item) : []));
    const now = [item, keys.on, [...keys.changed], classes];
    refill(this.choices, now, () => item ? [
      button("keep", `Keep ${markName(item.before)}`, () => this.act("keep"), item.before),
      button("change", `Change to ${markName(instead(item))}`, () => this.act("change"), instead(item)),
      button("skip", "Later", () => this.act("skip")),
    ] : []);
    const rest = item ? classes.filter((name) => ![item.before, instead(item)].includes(name)) : [];
    refill(this.others, now, () => rest.map((name) =>
      button(`class:${name}`, name, () => this.#answer(name), name)));
  }

  #asked(item) {
    const { before, by, suggested, confidence, others, consensus, probability } = item;
    const said = others.map(([who, mark]) => `${who} said ${markName(mark)}. `).join("");
    const sure = confidence ? ` (${Math.round(100 * confidence)} %)` : "";
    const model = suggested && suggested !== before
      ? `A model that did not see this label takes it for ${suggested}${sure}. ` : "";
    const together = others.length && consensus
      ? `All answers and the model together: ${consensus} (${Math.round(100 * probability)} %). ` : "";
    const n = this.items.length;
    return [h("strong", {}, `${by} said ${markName(before)}. `), said, model, together,
      h("span", { class: "quiet" }, `${item.path} · ${n === 1 ? "the last one" : `${n} to look at`}`)];
  }

  #show(item) {
    this.shown = item;
    this.visible = false;
    delete this.stage.dataset.shown;
    if (!item) {
      const known = this.items !== null;
      refill(this.stage, ["empty", known], () => h("p", { class: "empty" }, known
        ? "No label looks wrong. The model looks again while you label." : "One moment …"));
      return;
    }
    if (this.zoom.scale > 1) this.zoom.fit();
    delete this.stage.dataset.key;
    const { transport } = this.page.queue;
    const image = h("img", { alt: `Picture to look at again: ${item.path}` });
    this.stage.replaceChildren(image);
    const ready = () => {
      if (this.shown !== item) return;
      this.visible = true;
      this.stage.dataset.shown = item.sha256;
    };
    showPicture(image, transport.picture(item.sha256, "view")).then(ready, (error) => {
      if (this.shown !== item) return;
      if (isBroken(error)) {
        this.stage.replaceChildren(h("p", { class: "empty" },
          "This picture cannot be shown, so its label stays. Put it off."));
      } else setTimeout(() => { if (this.shown === item) this.#show(item); }, AGAIN);
    });
    for (const { sha256 } of this.items.slice(1, 4)) {
      transport.picture(sha256, "view").catch(() => {});
    }
  }

  #answer(mark) {
    const { item } = this;
    if (!item || !this.visible || this.shown.sha256 !== item.sha256) return false;
    this.done.set(item.sha256, item);
    this.items = this.items.slice(1);
    const kept = mark === item.before;
    this.page.queue.decide([{ ...item, mark }], "list", kept);
    this.page.announce(kept ? `${markName(mark)} is kept.` : `Changed to ${markName(mark)}.`);
    this.render();
    return true;
  }

  /** What answers for the picture that is looked at now, as long as it is. */
  aim() {
    const sha256 = this.visible && this.item?.sha256;
    return sha256 ? (mark) => this.item?.sha256 === sha256 && this.#answer(mark) : null;
  }

  act(name) {
    if (this.zoom.act(name)) return true;
    const { item } = this;
    if (!item) return false;
    if (name === "keep") return this.#answer(item.before);
    if (name === "change") return this.#answer(instead(item));
    if (name.startsWith("class:")) return this.#answer(name.slice(6));
    if (["cant-tell", "not-an-image"].includes(name)) return this.#answer(`?${name}`);
    if (name !== "skip") return false;
    this.later.add(item.sha256);
    this.items = [...this.items.slice(1), item];
    this.render();
    return true;
  }
}
