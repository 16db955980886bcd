/** The classes: what they mean, with examples; to add, rename and merge them. */

import { h, hue, own, refill, smallPicture } from "./dom.js";

/** What is known of a class, for everybody who labels. */
function described(page, name) {
  const { queue, keys } = page;
  const { class: color, ...sign } = hue(queue.about.classes, name);
  const [text, ...examples] = own(queue.state?.notes, name) ?? [""];
  const key = keys.on && keys.of(`class:${name}`);
  return [
    h("h3", { class: `choice ${color}` }, h("span", sign, name), key ? h("kbd", {}, key) : null),
    text ? h("p", { class: "note" }, text) : null,
    examples.length ? h("div", { class: "examples" }, examples.map((sha256, i) =>
      smallPicture(queue.transport, sha256, `Example ${i + 1} of ${name}`))) : null,
  ];
}

/** All classes, to look up while labelling. */
export function guide(page) {
  const { classes } = page.queue.about;
  return [
    h("h2", {}, "Labels"),
    h("ul", { class: "guide" }, classes.map((name) => h("li", {}, described(page, name)))),
    h("p", { class: "quiet" }, "Notes are written under Labels; ☆ beside one of the last " +
      "decisions makes its picture an example."),
  ];
}

export class Classes {
  /** @param {Object} page the queue, the keys, `announce` */
  constructor(page) {
    this.page = page;
    this.editing = null; // the class and what is done with it
    this.inputs = {}; // by what is done: they stay when another person changes something
    this.error = "";
    this.element = h("section", { class: "settings", "aria-label": "Labels" });
  }

  get ahead() {
    return 6;
  }

  act() {
    return false;
  }

  /** Classes are called otherwise by now. */
  rename(renamed) {
    if (this.editing) this.editing = [renamed(this.editing[0]), this.editing[1]];
  }

  render() {
    const { queue } = this.page;
    const { classes } = queue.about;
    refill(this.element, [classes, queue.state?.notes, this.editing, this.error], () => [
      h("h2", {}, "Labels"),
      this.error ? h("p", { class: "notice", role: "alert" }, this.error) : null,
      h("ul", { class: "guide" }, classes.map((name) => h("li", { "data-class": name },
        described(this.page, name),
        this.editing?.[0] === name ? this.#form(...this.editing) : h("div", { class: "others" },
          [["note", "Note"], ["rename", "Rename"], ["merge", "Merge"]].map(([what, text]) =>
            h("button", { type: "button", "data-focus": `${what}:${name}`,
              "aria-label": `${text}: ${name}`, onclick: () => this.#edit([name, what]) }, text)))))),
      this.#form(null, "add"),
      h("p", { class: "quiet" }, "Labels that were given follow when a class is renamed or " +
        "merged. Undo takes a change back, as long as nothing was answered since."),
    ]);
  }

  #edit(editing) {
    this.editing = editing;
    this.inputs = { add: this.inputs.add };
    this.error = "";
    this.render();
    this.element.querySelector("form [name=into]")?.focus();
  }

  #form(name, what) {
    const { queue } = this.page;
    const others = queue.about.classes.filter((each) => each !== name);
    const [text = "", ...examples] = own(queue.state?.notes, name) ?? [];
    const field = { name: "into", required: what !== "note", "data-focus": what };
    const make = {
      add: () => h("input", { ...field, type: "text", maxlength: 200 }),
      rename: () => h("input", { ...field, type: "text", maxlength: 2000, value: name }),
      note: () => h("textarea", { ...field, rows: 3, maxlength: 2000 }, text),
      merge: () => h("select", field, others.map((each) => h("option", { value: each }, each))),
    }[what];
    const input = what === "merge" ? make() : (this.inputs[what] ??= make());
    const asked = { add: "New label", rename: `New name of ${name}`, note: `What is ${name}?`,
      merge: `${name} becomes a part of` }[what];
    const kept = what === "note" && examples.length ? h("label", {},
      h("input", { type: "checkbox", name: "keep", checked: true }), " keep the examples") : null;
    return h("form", { onsubmit: (event) => {
      event.preventDefault();
      const into = input.value.trim();
      const keep = event.target.elements.keep?.checked ?? true;
      this.#change(what === "add" ? { change: what, names: [into] }
        : { change: what, names: [name, ...(what === "note" && keep ? examples : [])], into });
    } },
    h("label", {}, h("span", {}, `${asked} `), input), kept,
    h("button", { type: "submit", class: "primary" }, what === "add" ? "Add" : "Save"),
    name === null ? null : h("button", { type: "button", onclick: () => this.#edit(null) }, "Cancel"));
  }

  async #change(change) {
    const { change: what, names, into } = change;
    // To merge is to name all that become one.
    const all = what === "merge" ? { ...change, names: [...names, into] } : change;
    const { inputs } = this;
    try {
      await this.page.queue.changeClasses(all);
      if (what === "add") {
        inputs.add.value = "";
        this.error = "";
        this.render();
        inputs.add.focus();
      } else if (this.inputs === inputs) this.#edit(null); // else another one is open by now
      this.page.announce("Saved.");
    } catch (error) {
      this.error = error.message;
      this.render();
    }
  }
}
