/** The page: it puts the views together. */

import { allowSeveral, h, markName, refill } from "./dom.js";
import { ImageQueue } from "./queue.js";
import { Classes, guide } from "./classes.js";
import { Finder } from "./finder.js";
import { Finish } from "./finish.js";
import { Gallery } from "./gallery.js";
import { Grid } from "./grid.js";
import { History } from "./history.js";
import { ACTIONS, Keys, historyStep, isPlain, keyName } from "./keys.js";
import { Progress } from "./progress.js";
import { SecondLook } from "./second.js";
import { Settings } from "./settings.js";
import { Single } from "./single.js";
import { Strip } from "./strip.js";
import { Test } from "./test.js";
import { labelFile } from "./outbox.js";
import { SESSION, fetchTransport } from "./transport.js";

const VIEWS = [
  ["single", "One by one", Single],
  ["grid", "Grid", Grid],
  ["gallery", "Gallery", Gallery],
  ["second", "Second look", SecondLook],
  ["progress", "Progress", Progress],
  ["classes", "Labels", Classes],
  ["test", "Test", Test],
  ["finish", "Finish", Finish],
  ["settings", "Settings", Settings],
];

const OF_ONE_LABEL = ["grid", "gallery", "second", "test"];

/** Everything that the views share. */
class Page {
  constructor(root, transport, about) {
    allowSeveral(about.several);
    this.offered = VIEWS.filter(([name]) => !about.several || !OF_ONE_LABEL.includes(name));
    this.store = `skadma:${about.id}:settings`;
    this.settings = { guesses: false, prefill: false, many: 20, tile: 148, keepZoom: false,
      goal: 95, ...this.#stored() };
    this.queue = new ImageQueue(transport, about);
    this.keys = new Keys(about.id, about.classes, about.former);
    this.views = Object.fromEntries(VIEWS.map(([name, , View]) => [name, new View(this)]));
    this.strip = new Strip(this);
    this.history = new History(this);
    this.finder = new Finder(this);
    this.#build(root, about);
    this.queue.addEventListener("change", () => this.render());
    this.queue.addEventListener("classes", ({ detail }) => this.#classes(detail));
    this.queue.addEventListener("notice", ({ detail }) => this.notice(detail.text));
    this.queue.addEventListener("undone", ({ detail }) =>
      this.announce(`Taken back: ${markName(detail.entry.mark)}, ${detail.entry.items[0].path}`));
    this.queue.addEventListener("unreachable", ({ detail }) => this.unreachable(detail));
    this.queue.addEventListener("reachable", () => { this.banner.hidden = true; });
    document.addEventListener("keydown", (event) => this.#key(event));
    window.addEventListener("beforeunload", (event) => {
      if (this.queue.outbox.size) event.preventDefault();
    });
    this.show("single");
  }

  #build(root, about) {
    this.tabs = h("nav", { "aria-label": "Views" }, this.offered.map(([name, text]) =>
      h("button", { type: "button", id: `view-${name}`, onclick: () => this.show(name) }, text)));
    this.bar = h("progress", { max: 1, value: 0, "aria-label": "Decided" });
    this.sums = h("p", { class: "sums-line", id: "sums" });
    this.stage = h("p", { class: "stage-line", id: "learning" });
    this.live = h("p", { class: "hidden", "aria-live": "polite", id: "live" });
    this.banner = h("p", { class: "banner", role: "alert", hidden: true });
    this.notices = h("div", { class: "notices", role: "status" });
    this.kept = h("div", { class: "notices", id: "kept", role: "status" });
    this.main = h("main", { id: "main" });
    this.dialog = h("dialog", { "aria-label": "Help" });
    root.replaceChildren(
      h("header", {},
        h("h1", {}, about.campaign),
        this.tabs,
        h("p", { class: "who quiet" }, `you are ${about.who}`),
        h("button", { type: "button", class: "icon", "aria-label": "Help", title: "help",
          onclick: () => this.help() }, "?")),
      h("section", { "aria-label": "Where things stand" },
        h("div", { class: "standing" }, this.bar, this.sums, this.stage),
        this.banner, this.notices, this.kept),
      h("div", { class: "body" }, this.main, this.strip.element),
      this.live, this.dialog, this.finder.element);
  }

  #classes({ classes, renamed }) {
    this.keys.arrange(classes, renamed);
    for (const view of Object.values(this.views)) view.rename?.(renamed);
    this.finder.render();
    const named = classes.map((name) => {
      const key = this.keys.of(`class:${name}`);
      return this.keys.on && key ? `${name} (${keyName(key)})` : name;
    });
    this.notice(`The classes were changed. They are: ${named.join(", ")}.`);
  }

  #stored() {
    try {
      return JSON.parse(localStorage.getItem(this.store)) ?? {};
    } catch {
      return {};
    }
  }

  /** Change a setting. */
  set(name, value) {
    this.settings = { ...this.settings, [name]: value };
    localStorage.setItem(this.store, JSON.stringify(this.settings));
    this.queue.ahead = this.view.ahead;
    this.queue.hurry?.();
    this.render();
  }

  /** Go to a view. */
  show(name) {
    this.view?.close?.();
    this.view = this.views[name];
    for (const [other] of this.offered) {
      document.getElementById(`view-${other}`)
        .setAttribute("aria-current", other === name ? "page" : "false");
    }
    this.main.replaceChildren(this.view.element);
    document.body.dataset.view = name;
    this.queue.ahead = this.view.ahead;
    this.queue.hurry?.();
    this.view.open?.();
    this.render();
  }

  render() {
    const { state, outbox } = this.queue;
    this.view.render();
    this.strip.render();
    this.#renderKept();
    if (!state) return;
    const decided = this.queue.nDecided;
    this.bar.max = Math.max(1, state.n_images);
    this.bar.value = decided;
    const unsaved = outbox.size ? ` · ${outbox.size} being saved` : "";
    const skipped = state.n_skipped ? `, ${state.n_skipped} skipped` : "";
    this.sums.textContent = `${decided} of ${state.n_images} decided${skipped}${unsaved}`;
    this.stage.textContent = this.#stageText(state);
    refill(this.notices, state.problem, () => state.problem
      ? h("p", { class: "notice" }, `Training: ${state.problem}`) : []);
  }

  /** What was refused, and what this browser keeps of other campaigns and people. */
  #renderKept() {
    const { outbox } = this.queue;
    const { refused, others } = outbox;
    refill(this.kept, [refused, others.length], () => [
      refused.length ? h("div", { class: "notice", id: "refused" },
        h("p", {}, `Not taken: ${many(refused.length)}.`),
        h("ul", {}, refused.slice(0, 5).map(({ path, mark, reason }) =>
          h("li", {}, `${path}: ${markName(mark)}. ${reason}`))),
        saveButton(refused, "skadma-refused.csv"),
        h("button", { type: "button", "data-focus": "forget",
          onclick: () => outbox.forgetRefused() }, "Forget them")) : null,
      others.length ? h("div", { class: "notice", id: "others" },
        h("p", {}, `This browser keeps ${many(others.length)} for another campaign, ` +
          "or of another person. They are sent when their page has this address again."),
        saveButton(others, "skadma-unsent.csv")) : null,
    ]);
  }

  #stageText({ stage, n_images, n_labels, n_known, n_left, quality }) {
    const known = n_labels
      ? `The model knows ${n_known} of your ${n_labels} ${n_labels === 1 ? "label" : "labels"}` : "";
    const [share, low, high] = (quality ?? []).map((x) => Math.round(100 * x));
    const right = quality
      ? `by the labels so far it is right about ${share} % (${low} to ${high}) of the time` : "";
    const now = {
      training: "it is learning and choosing",
      choosing: "Pictures are drawn by chance until the network has looked at some of them",
    }[stage];
    const seen = n_left
      ? `the network has looked at ${n_images - n_left} of ${n_images} pictures` : "";
    return [known, right, now, seen].filter(Boolean).join("; ");
  }

  /** What to show where there is no picture. */
  emptiness() {
    const { state, elsewhere, nDecided, passed } = this.queue;
    const only = (text) => [h("p", { class: "empty" }, text)];
    if (!state) return only("One moment …");
    const left = state.n_images - nDecided;
    if (left <= 0 || (passed.size && left <= state.n_skipped)) {
      return state.read_all ? [this.#end(left)] : only("Reading the folder …");
    }
    if (elsewhere && elsewhere >= left) {
      return only("What is left is open in another tab.");
    }
    return only("One moment …");
  }

  /** Nothing is left to label: what was skipped twice, and what to do next. */
  #end(left) {
    const { queue } = this;
    const { state } = queue;
    const skipped = `${left} ${left === 1 ? "was" : "were"} skipped`;
    return h("div", { class: "empty", id: "end" },
      h("p", {}, left > 0 ? `${queue.nDecided} of ${state.n_images} pictures are decided, ${skipped}.`
        : `All ${state.n_images} pictures are decided.`),
      left > 0 ? h("button", { type: "button", onclick: () => {
        queue.passed.clear();
        queue.hurry?.();
      } }, "Show what was skipped") : null,
      h("p", {}, "What next:"),
      h("ul", {},
        [["second", "Look again at labels that may be wrong"], ["test", "Test the model"],
          ["finish", queue.about.several ? "Save the labels, hand on the model"
            : "Sort the photographs, save the labels, hand on the model"]]
          .filter(([view]) => this.offered.some(([name]) => name === view))
          .map(([view, text]) => h("li", {},
            h("button", { type: "button", onclick: () => this.show(view) }, text)))));
  }

  /** Ask for a label by its first letters. */
  find(text = "") {
    const give = this.view.aim();
    if (!give) return;
    this.finder.open(text, (name) => {
      if (!give(name)) this.notice("A picture that the label was for is not here any more; it got none.");
    });
  }

  /** Say something to those who do not see the page. */
  announce(text) {
    this.live.textContent = text;
  }

  /** Show something that needs attention for a while. */
  notice(text) {
    const line = h("p", { class: "notice" }, text, h("button", { type: "button",
      class: "icon", "aria-label": "Close", onclick: () => line.remove() }, "×"));
    this.banner.after(line);
    this.announce(text);
    setTimeout(() => line.remove(), 20000);
  }

  unreachable({ status, message }) {
    const { size } = this.queue.outbox;
    const kept = size ? ` ${size} decisions are kept in this browser until then.` : "";
    this.banner.textContent = status === 401
      ? "The server was started anew. Open the address that it printed, here or in another " +
        `tab: then this page goes on by itself.${kept}`
      : `${message || "The server does not answer."} This page tries again by itself.${kept}`;
    this.banner.hidden = false;
  }

  undo(target) {
    (this.view.history ?? this.history).undo(target);
  }

  fullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else document.documentElement.requestFullscreen?.();
  }

  help() {
    const { keys, queue } = this;
    const rows = [
      ...queue.about.classes.map((name) => [`class:${name}`, name]),
      ...ACTIONS.map(([name, text]) => [name, text]),
    ];
    this.#dialog("Help",
      h("h2", {}, "Keys"),
      h("p", { hidden: keys.on }, "They are switched off, see Settings."),
      h("table", {}, h("tbody", {}, rows.map(([name, text]) => h("tr", {},
        h("th", { scope: "row" }, text), h("td", {}, h("kbd", {}, keyName(keys.of(name)))))))),
      h("p", { class: "quiet" }, "Ctrl-Z takes back too; Ctrl-Y or Ctrl-Shift-Z does it again. " +
        "The wheel zooms, the mouse or the arrows move what is zoomed. In the grid: arrows move, a label's key labels and goes " +
        "on, Space or a click goes through the labels."),
    );
  }

  /** What the labels mean. */
  guide() {
    this.#dialog("Labels", ...guide(this));
  }

  #dialog(name, ...children) {
    this.dialog.setAttribute("aria-label", name);
    this.dialog.replaceChildren(...children, h("button", { type: "button", autofocus: true,
      onclick: () => this.dialog.close() }, "Close"));
    this.dialog.showModal();
  }

  #key(event) {
    const step = historyStep(event);
    if (step) {
      event.preventDefault();
      (this.view.history ?? this.history)[step]();
    }
    if (!isPlain(event)) return;
    const name = this.keys.meaning(event.key);
    const many = this.queue.about.classes.length > 10;
    if (!name && this.keys.on && many && this.view.labels && /^[\p{L}\p{N}]$/u.test(event.key)) {
      event.preventDefault();
      this.find(event.key);
    }
    if (!name) return;
    // Enter and Space press a button that has the focus; in the grid Enter takes all.
    const onButton = event.target.closest?.("button, summary, [type=checkbox]");
    const inGrid = event.target.closest?.(".tile");
    if (onButton && [" ", "Enter"].includes(event.key) && !(inGrid && name === "take")) return;
    if (this.#act(name)) event.preventDefault();
  }

  #act(name) {
    if (name === "undo") this.undo();
    else if (name === "redo") (this.view.history ?? this.history).redo();
    else if (name === "screen") this.fullScreen();
    else if (name === "help") this.help();
    else if (name === "guide") this.guide();
    else if (name === "find" && this.view.labels) this.find();
    else return this.view.act(name);
    return true;
  }
}

function many(n) {
  return `${n} ${n === 1 ? "answer" : "answers"}`;
}

function saveButton(decisions, name) {
  return h("button", { type: "button", "data-focus": name, onclick: () => {
    const file = new Blob([labelFile(decisions)], { type: "text/csv" });
    const link = h("a", { href: URL.createObjectURL(file), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  } }, "Save as a label file");
}

const transport = fetchTransport();

/** Trade the token in the address, which serves once, for the session's. */
async function enter() {
  const token = location.hash.slice(1);
  if (!token) return;
  history.replaceState(null, "", "/");
  // One that served before: perhaps it was this browser that it let in.
  await transport.enter(token).catch(() => {});
}

async function start() {
  const root = document.getElementById("page");
  try {
    await enter();
    const about = await transport.call("about");
    transport.campaign = about.id;
    document.title = `${about.campaign} – skadma label`;
    window.skadmaPage = new Page(root, transport, about);
  } catch (error) {
    root.replaceChildren(h("main", {}, h("h1", {}, "skadma label"),
      h("p", { class: "empty", role: "alert" }, error.message)));
  }
}

/** This tab has a new address, or another one was let in. */
async function goOn(event) {
  const page = window.skadmaPage;
  if (!page) return start();
  const isHere = event.type === "hashchange";
  if (isHere) await enter();
  const about = await transport.call("about").catch(() => null); // the page says so
  if (about && isHere && about.id !== transport.campaign) {
    return location.reload(); // it is another campaign's, or another person's
  }
  page.queue.hurry?.();
  page.queue.outbox.hurry?.();
}

window.addEventListener("hashchange", goOn);
window.addEventListener("storage", (event) => event.key === SESSION && goOn(event));
start();
