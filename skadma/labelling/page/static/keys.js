/** Keys: one for each label and action, settable, and all of them can be switched off. */

import { own } from "./dom.js";

export const ACTIONS = [
  ["skip", "Skip: ask again when nothing else is left", "s"],
  ["cant-tell", "Can't tell: leave it to somebody else", "t"],
  ["not-an-image", "Not an image of the task", "x"],
  ["undo", "Take the last step back", "Backspace"],
  ["redo", "Do it again", ""],
  ["zoom", "Zoom", "z"],
  ["closer", "Zoom in", "+"],
  ["farther", "Zoom out", "-"],
  ["fit", "The whole picture", ""],
  ["contrast", "Contrast (view only)", "k"],
  ["brightness", "Brightness (view only)", "b"],
  ["find", "Find a label by its first letters", "/"],
  ["guess", "Show or hide the model's guess", "g"],
  ["screen", "Full screen", "f"],
  ["help", "Help", "h"],
  ["guide", "What the labels mean, with examples", "?"],
  ["take", "Grid, gallery: take all that are seen; several labels: done", "Enter"],
  ["loupe", "Grid, gallery: the picture large", "."],
  ["like", "Gallery: more like this one", "="],
  ["keep", "Second look: keep the label", "ArrowLeft"],
  ["change", "Second look: change it", "ArrowRight"],
];

/** How a key reads. */
export function keyName(key) {
  const names = { " ": "Space", Backspace: "⌫", Enter: "↵", "": "none", ArrowLeft: "←",
    ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" };
  return names[key] ?? (key.length === 1 ? key.toUpperCase() : key);
}

const DIGITS = "1234567890";

/** A free letter of a name; "" if there is none. */
function letterOf(name, taken) {
  return [...name.toLowerCase()].find((each) => /\p{L}/u.test(each) && !taken.has(each)) ?? "";
}

/** The keys of classes that are called otherwise by now. */
function follow(keys, renamed) {
  const followed = [...keys].map(([name, key]) => {
    const now = name.startsWith("class:") && renamed(name.slice(6));
    return [now ? `class:${now}` : name, key, name];
  });
  const same = ([now, , name]) => Number(now === name); // who has the name keeps its key
  followed.sort((a, b) => same(a) - same(b));
  return new Map(followed);
}

/** Which key means what: "class:NAME" or the name of an action. */
export class Keys {
  /**
   * @param {string} campaign its id: settings are kept by campaign
   * @param {string[]} classes
   * @param {Object<string, string>} former names that classes had before
   */
  constructor(campaign, classes, former) {
    this.store = `skadma:${campaign}:keys`;
    let stored = {};
    try {
      stored = JSON.parse(localStorage.getItem(this.store)) ?? {};
    } catch {
      // Not ours, or broken: the defaults hold.
    }
    this.on = stored.on !== false;
    this.changed = new Map(
      Object.entries(stored.keys ?? {}).filter(([, key]) => typeof key === "string"),
    );
    this.defaults = new Map();
    this.arrange(classes, (name) => own(former, name));
  }

  /**
   * Give the classes keys, as at first or when they changed: who has one keeps it.
   * `renamed` gives a class's name by its name until now, nothing if it is none any more.
   */
  arrange(classes, renamed = () => null) {
    this.classes = classes;
    this.changed = follow(this.changed, renamed);
    const before = follow(this.defaults, renamed);
    const kept = classes.map((name) => before.get(`class:${name}`)).filter(Boolean);
    const digits = [...DIGITS].filter((digit) => !kept.includes(digit));
    // Ten digits; then a letter of the name that is free.
    const taken = new Set([...ACTIONS.map(([, , key]) => key), ...this.changed.values(), ...kept]);
    this.defaults = new Map(classes.map((name) => {
      const key = before.get(`class:${name}`) || (digits.shift() ?? letterOf(name, taken));
      taken.add(key);
      return [`class:${name}`, key];
    }));
    for (const [name, , key] of ACTIONS) this.defaults.set(name, key);
    for (const name of this.changed.keys()) {
      if (!this.defaults.has(name)) this.changed.delete(name);
    }
    // A key that was set keeps its meaning; who has it at first gets a free one.
    for (const [name, key] of [...this.changed].filter(([, set]) => set)) {
      for (const other of this.defaults.keys()) {
        if (other === name || this.of(other) !== key) continue;
        const all = new Set([...this.defaults.keys()].map((each) => this.of(each)));
        const free = [...DIGITS].find((digit) => !all.has(digit));
        this.defaults.set(other, !other.startsWith("class:") ? ""
          : free ?? letterOf(other.slice(6), all));
      }
    }
  }

  /** The key of something; "" for none. */
  of(name) {
    return this.changed.get(name) ?? this.defaults.get(name) ?? "";
  }

  /** What a key means, if anything. */
  meaning(key) {
    return this.on ? this.owner(key) : undefined;
  }

  /** What has a key, if anything. */
  owner(key) {
    const wanted = key.length === 1 ? key.toLowerCase() : key;
    return [...this.defaults.keys()].find((name) => this.of(name) === wanted);
  }

  /** Give something a key; what had it before has none then. */
  set(name, key) {
    const wanted = key.length === 1 ? key.toLowerCase() : key;
    if (wanted) {
      for (const other of this.defaults.keys()) {
        if (this.of(other) === wanted) this.changed.set(other, "");
      }
    }
    this.changed.set(name, wanted);
    this.#save();
  }

  /** Switch all keys on or off. */
  turn(on) {
    this.on = on;
    this.#save();
  }

  /** As it was at first. */
  reset() {
    this.changed.clear();
    this.defaults.clear();
    this.arrange(this.classes);
    this.#save();
  }

  #save() {
    const keys = Object.fromEntries(this.changed);
    localStorage.setItem(this.store, JSON.stringify({ on: this.on, keys }));
  }
}

/** "undo" or "redo" for Ctrl-Z, Ctrl-Y and Ctrl-Shift-Z where no text is typed. */
export function historyStep(event) {
  if (!(event.ctrlKey || event.metaKey) || event.altKey || event.isComposing) return null;
  if (event.target.closest?.("input:not([type=checkbox]), textarea, dialog[open]")) return null;
  const key = event.key.toLowerCase();
  if (key === "z") return event.shiftKey ? "redo" : "undo";
  return key === "y" && !event.shiftKey ? "redo" : null;
}

/** Whether a key event is meant for us: no repeat, no Ctrl, no text being typed. */
export function isPlain(event) {
  return !(
    event.repeat ||
    event.ctrlKey ||
    event.metaKey ||
    event.altKey ||
    event.isComposing ||
    event.defaultPrevented ||
    event.target.closest?.("input:not([type=checkbox]), textarea, select, dialog[open]")
  );
}
