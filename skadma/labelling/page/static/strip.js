/** The last ten decisions, each with undo. */

import { h, hue, markName, own, refill, smallPicture } from "./dom.js";

export class Strip {
  /** @param {Object} page the queue, `undo` */
  constructor(page) {
    this.page = page;
    this.list = h("ol", { class: "recent" });
    this.element = h("aside", { "aria-label": "Last decisions" },
      h("h2", {}, "Last decisions"), this.list);
  }

  render() {
    const { queue } = this.page;
    const entries = queue.strip();
    const notes = queue.state?.notes;
    refill(this.list, [entries.map(({ target, saved, mark }) => [target, saved, mark]), notes], () =>
      entries.length ? entries.map((entry) => this.#entry(entry)) :
        h("li", { class: "quiet" }, "None yet."));
  }

  #entry({ target, saved, mark, items }) {
    const { queue } = this.page;
    const [{ sha256, path }] = items;
    const { class: color, ...sign } = hue(queue.about.classes, mark);
    return h("li", { "data-target": target, "data-saved": String(saved), "data-mark": mark },
      smallPicture(queue.transport, sha256, ""),
      h("div", {},
        h("span", { class: `mark ${color}`, ...sign }, markName(mark)),
        items.length > 1 ? h("span", { class: "quiet" }, ` and ${items.length - 1} more`) : null,
        h("span", { class: "name" }, path),
        saved ? null : h("span", { class: "quiet" }, "saving…")),
      h("div", { class: "does" }, saved && color && items.length === 1
        ? this.#star(mark, sha256, path) : null,
      h("button", { type: "button", class: "icon", "data-focus": target,
        "aria-label": `Take back: ${markName(mark)}, ${path}`,
        title: "take back", onclick: () => this.page.undo(target) }, "↶")));
  }

  /** Make a picture one of the three examples of its class, or no longer. */
  #star(mark, sha256, path) {
    const { queue } = this.page;
    const [text, ...examples] = own(queue.state.notes, mark) ?? [""];
    const is = examples.includes(sha256);
    const now = is ? examples.filter((each) => each !== sha256) : [...examples, sha256].slice(-3);
    return h("button", { type: "button", class: "icon", "data-focus": `star:${sha256}`,
      "aria-pressed": String(is), "aria-label": `Example of ${mark}: ${path}`,
      title: `an example of ${mark}`, onclick: () =>
        queue.changeClasses({ change: "note", names: [mark, ...now], into: text })
          .catch((error) => this.page.notice(error.message)) }, is ? "★" : "☆");
  }
}
