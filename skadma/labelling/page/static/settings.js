/** Keys and what is shown. */

import { h, refill } from "./dom.js";
import { ACTIONS, keyName } from "./keys.js";

/** What a class or an action is called. */
function describe(name) {
  const action = ACTIONS.find(([each]) => each === name);
  return action ? action[1] : name.slice(6);
}

export class Settings {
  /** @param {Object} page the queue, the keys, the settings, `announce` */
  constructor(page) {
    this.page = page;
    this.waiting = null; // what gets the next key
    this.said = ""; // of the last one that was taken away
    this.element = h("section", { class: "settings", "aria-label": "Settings" });
    this.element.addEventListener("keydown", (event) => this.#take(event), true);
  }

  get ahead() {
    return 6;
  }

  act() {
    return false;
  }

  render() {
    const { queue, keys, settings } = this.page;
    const names = [
      ...queue.about.classes.map((name) => [`class:${name}`, name]),
      ...ACTIONS.map(([name, text]) => [name, text]),
    ];
    refill(this.element, [keys.on, [...keys.changed], names, this.waiting, this.said, settings], () => [
      h("h2", {}, "Keys"),
      this.said ? h("p", { class: "notice", id: "key-taken" }, this.said) : null,
      h("p", {}, h("label", {}, h("input", { type: "checkbox", checked: keys.on,
        "data-focus": "on", id: "keys-on",
        onchange: (event) => this.#do(() => keys.turn(event.target.checked)) }),
      " use single keys")),
      h("table", { class: "keys" }, h("caption", { class: "hidden" }, "Keys"),
        h("tbody", {}, names.map(([name, text]) => h("tr", {},
          h("th", { scope: "row" }, text),
          h("td", {}, h("button", { type: "button", "data-focus": name,
            "data-key-of": name, "aria-label": `Key of ${text}: ${keyName(keys.of(name))}`,
            onclick: () => this.#do(() => { this.waiting = name; }) },
          this.waiting === name ? "press a key" : h("kbd", {}, keyName(keys.of(name)))))
        )))),
      h("p", { class: "quiet" }, "Click one, then press the new key: Escape leaves it, " +
        "Delete takes the key away. Settings are kept in this browser."),
      h("p", {}, h("button", { type: "button", "data-focus": "reset",
        onclick: () => this.#do(() => keys.reset()) }, "Keys as at first")),
      h("h2", {}, "The model's guess"),
      h("p", {}, h("label", {}, h("input", { type: "checkbox", checked: settings.guesses,
        "data-focus": "guesses",
        onchange: (event) => this.page.set("guesses", event.target.checked) }),
      " show it beside the picture")),
      h("p", {}, h("label", {}, h("input", { type: "checkbox", checked: settings.prefill,
        "data-focus": "prefill2",
        onchange: (event) => this.page.set("prefill", event.target.checked) }),
      " begin the grid with it")),
      h("p", { class: "quiet" }, "Both are off at first: who sees a guess follows it more " +
        "often than not, right or wrong."),
    ]);
  }

  #do(change) {
    change();
    this.page.render();
  }

  #take(event) {
    if (!this.waiting || event.key === "Tab" || ["Shift", "Control", "Alt", "Meta"].includes(event.key)) return;
    if (event.ctrlKey || event.metaKey || event.isComposing) return;
    event.preventDefault();
    event.stopPropagation();
    const name = this.waiting;
    const { keys } = this.page;
    const owner = event.key === "Escape" || event.key === "Delete" ? name : keys.owner(event.key);
    const key = keyName(event.key);
    this.said = owner && owner !== name
      ? `${key} was the key of “${describe(owner)}”, which has none now.` : "";
    this.#do(() => {
      this.waiting = null;
      if (event.key !== "Escape") {
        keys.set(name, event.key === "Delete" ? "" : event.key);
      }
    });
    this.page.announce(`Key: ${keyName(keys.of(name))}. ${this.said}`);
  }
}
