/** What was done here, to be undone and done again: decisions, marks, changed classes. */

import { markName } from "./dom.js";

const KEPT = 200;

export class History {
  /** @param {Object} page the queue, the views, `announce`, `show` */
  constructor(page) {
    this.page = page;
    // { marked } of the grid, not saved yet; { change } of classes, or a decision, each
    // with its target. Labels are named as of when they were given.
    this.past = [];
    this.future = [];
    page.queue.addEventListener("classesChanged", ({ detail }) => {
      this.again = this.changing === detail.change;
      this.#did(detail);
      this.again = false;
    });
    page.queue.addEventListener("decided", ({ detail }) =>
      this.#did({ ...detail, given: page.views.grid.forget(detail.marks) }));
  }

  /** Note marks of the grid: rows of picture, mark before, mark now, as it keeps them. */
  marked(rows) {
    this.#did({ marked: rows });
  }

  #did(entry) {
    this.past = [...this.past, entry].slice(-KEPT);
    if (!this.again) this.future = [];
  }

  /** Take the last thing back, or a decision of the strip. */
  undo(target) {
    const { queue, views } = this.page;
    const there = new Set(queue.items.map(({ sha256 }) => sha256));
    const seen = ({ marked }) => !marked || marked.some(([sha256]) => there.has(sha256));
    while (!target && this.past.length && !seen(this.past.at(-1))) this.past.pop();
    if (!target && this.past.at(-1)?.marked) {
      const entry = this.past.pop();
      this.future.push(entry);
      this.#put(entry.marked.map(([sha256, before]) => [sha256, before]));
      return;
    }
    if (!target && this.past.at(-1)?.change) {
      const entry = this.past.pop();
      this.future.push(entry);
      queue.undoChange(entry.target);
      return;
    }
    const last = target ?? queue.strip()[0]?.target;
    const own = this.past.find((entry) => entry.target === last);
    const undone = queue.undo(last, own?.marks, own?.via !== "gallery");
    if (!undone) return;
    this.past = this.past.filter((entry) => entry !== own);
    const many = undone.items.length > 1;
    const marks = undone.items.map(({ sha256, mark }) => [sha256, [mark, queue.asOf]]);
    this.future.push({
      via: own?.via ?? (many ? "grid" : "keys"), confirm: own?.confirm ?? false,
      marks: own?.marks ?? undone.items, // as they were given: perhaps blind
      as_of: own?.as_of ?? queue.asOf,
    });
    views.grid.put(own?.given ?? (many ? marks : []));
    this.page.render();
  }

  /** Do what was taken back again; a class that is gone may have come back. */
  redo() {
    const { queue } = this.page;
    if (this.changing) return;
    const entry = this.future.pop();
    if (!entry) return;
    if (entry.change) {
      this.#changeAgain(entry.change);
      return;
    }
    this.again = true;
    if (entry.marked) {
      this.#did(entry);
      this.#put(entry.marked.map(([sha256, , now]) => [sha256, now]));
    } else {
      const now = (mark) => queue.present(mark, entry.as_of) ?? mark;
      const marks = entry.marks.map((item) =>
        ({ ...item, mark: now(item.mark), before: now(item.before) }));
      queue.decide(marks, entry.via, entry.confirm);
      const [{ mark, path }] = marks;
      this.page.announce(`Done again: ${markName(mark)}, ${path}`);
    }
    this.again = false;
    this.page.render();
  }

  /** Change classes again, once the log has what was done before. */
  async #changeAgain(change) {
    const { queue } = this.page;
    this.changing = change;
    try {
      await queue.outbox.emptied();
      await queue.changeClasses(change);
    } catch (error) {
      this.page.notice(error.message);
    }
    this.changing = null;
  }

  #put(rows) {
    const { views } = this.page;
    if (this.page.view !== views.grid) this.page.show("grid");
    views.grid.put(rows);
    const { queue } = this.page;
    const [[sha256, given]] = rows;
    const { path } = queue.items.find((item) => item.sha256 === sha256) ?? {};
    const mark = given && queue.present(...given);
    this.page.announce(`${path}: ${mark ? markName(mark) : "no label"}`);
    this.page.render();
  }
}
