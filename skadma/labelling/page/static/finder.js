/** Find a class by its first letters, where there are more than keys. */

import { h, hue } from "./dom.js";

const SHOWN = 12;

function plain(text) {
  return text.normalize("NFD").replaceAll(/\p{M}/gu, "").toLowerCase();
}

/** The classes that a text may mean, the best first. */
export function matching(classes, text) {
  const wanted = plain(text.trim());
  const rank = (name) => {
    const at = plain(name).indexOf(wanted);
    return at > 0 && /[\p{L}\p{N}]/u.test(plain(name)[at - 1]) ? 2 : Math.min(at, 1);
  };
  return classes.map((name) => [rank(name), name]).filter(([at]) => at >= 0)
    .sort(([a], [b]) => a - b).map(([, name]) => name);
}

export class Finder {
  /** @param {Object} page the queue, the keys */
  constructor(page) {
    this.page = page;
    this.input = h("input", { type: "text", role: "combobox", id: "find",
      "aria-label": "First letters of the label", "aria-autocomplete": "list",
      "aria-expanded": "true", "aria-controls": "found", autocomplete: "off",
      oninput: () => this.#list(0), onkeydown: (event) => this.#key(event) });
    this.found = h("ul", { id: "found", role: "listbox", "aria-label": "Labels" });
    this.element = h("dialog", { class: "finder", "aria-label": "Find a label" },
      this.input, this.found);
  }

  /** Ask for a class; `choose` gets its name. */
  open(text, choose) {
    this.choose = choose;
    this.input.value = text;
    this.#list(0);
    this.element.showModal();
    this.input.focus();
    this.input.setSelectionRange(text.length, text.length);
  }

  /** The classes are others by now. */
  render() {
    if (this.element.open) this.#list(this.at);
  }

  #list(at) {
    const { classes } = this.page.queue.about;
    this.names = matching(classes, this.input.value).slice(0, SHOWN);
    this.at = Math.max(0, Math.min(at, this.names.length - 1));
    this.found.replaceChildren(...this.names.map((name, i) => {
      const { class: color, ...sign } = hue(classes, name);
      return h("li", { role: "option", id: `found-${i}`, class: `choice ${color}`,
        "aria-selected": String(i === this.at), onclick: () => this.#take(name) },
      h("span", sign, name));
    }));
    if (this.names.length) this.input.setAttribute("aria-activedescendant", `found-${this.at}`);
    else this.input.removeAttribute("aria-activedescendant");
  }

  #key(event) {
    if (event.isComposing) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) this.#list(this.at + step);
    else if (event.key === "Enter") this.#take(this.names[this.at]);
    else if (event.key === "Escape") this.#close();
    else return;
    event.preventDefault();
  }

  #take(name) {
    if (name === undefined) return;
    this.#close();
    this.choose(name);
  }

  /** The focus goes back to where it was. */
  #close() {
    this.element.close();
    this.input.blur(); // else it has the next key where nothing had the focus before
  }
}
