/** The last page: test, sort, labels, hand on. */

import { h, refill } from "./dom.js";
import { Jobs } from "./jobs.js";
import { labelFile } from "./outbox.js";
import { times } from "./test.js";

export class Finish {
  /** @param {Object} page the queue, `announce` */
  constructor(page) {
    this.page = page;
    this.jobs = new Jobs(page, () => this.render());
    this.wish = { into: "", how: "copy", unsure: 0.8 };
    this.parts = Object.fromEntries(["known", "line", "sort", "said", "labels", "hand"].map((name) =>
      [name, h("div", { id: `finish-${name}` })]));
    this.several = page.queue.about.several; // else there is no test, no forecast, no sorting
    this.element = h("section", { class: "finish", "aria-label": "Finish" },
      this.several ? [this.parts.labels, this.parts.hand] : Object.values(this.parts));
    this.#build();
  }

  get ahead() {
    return 6;
  }

  async open() {
    if (this.several) return;
    this.jobs.open();
    if (this.page.queue.state?.n_labels) this.jobs.start("forecast");
  }

  close() {
    this.jobs.close();
  }

  act() {
    return false;
  }

  #build() {
    const { wish } = this;
    const { folder } = this.page.queue.about;
    this.look = h("button", { type: "button", id: "sort-plan", class: "primary",
      onclick: () => this.#sort("plan") }, "Show what goes where");
    refill(this.parts.sort, "form", () => [
      h("h2", {}, "Sort the photographs"),
      h("p", { class: "quiet" }, "Into a folder for each class: by your labels, the others by the " +
        "model. The photographs themselves stay where they are."),
      h("label", {}, "New folder, in full ", h("input", { type: "text", name: "into", id: "sort-into",
        placeholder: "/home/me/sorted", autocomplete: "off", spellcheck: "false",
        oninput: (event) => { wish.into = event.target.value.trim(); this.render(); } })),
      h("label", {}, "As ", h("select", { name: "how", id: "sort-how",
        onchange: (event) => { wish.how = event.target.value; } },
      h("option", { value: "copy" }, "copies"), h("option", { value: "link" }, "links"))),
      h("label", {}, "Into the folder 'unsure' where the model is less sure than ",
        h("input", { type: "number", name: "unsure", id: "sort-unsure", min: 0, max: 100, value: 80,
          onchange: (event) => { wish.unsure = Math.min(1, Math.max(0, event.target.value / 100)); } }), " %"),
      h("p", {}, this.look)]);
    refill(this.parts.labels, "labels", () => [
      h("h2", {}, "Your labels"),
      h("p", {}, h("button", { type: "button", id: "save-labels", onclick: () => this.#labels() },
        "Save as a CSV file"))]);
    refill(this.parts.hand, "hand", () => [
      h("h2", {}, "Hand on the model"),
      h("p", { class: "quiet" }, "In a terminal: the model with its card, and labels for other photographs."),
      h("pre", { tabindex: "0" }, `skadma export-model --campaign ${quoted(folder)} -o model\n` +
        (this.several ? "" : `skadma finish --campaign ${quoted(folder)} -o model   ` +
          "# in its place: fine-tuned, if that is better\n") +
        "skadma predict PHOTOS --model model -o labels.csv" + (this.several ? ""
          : `\nskadma sort PHOTOS --campaign ${quoted(folder)} --into sorted`))]);
  }

  render() {
    const measured = this.jobs.of("measure").result;
    refill(this.parts.known, measured?.value ?? null, () => [
      h("h2", {}, "How good it is"),
      h("p", {}, measured
        ? `At the last test the model was right ${times([measured.value, measured.low, measured.high])}. `
        : "Nobody has tested the model yet. ",
      h("button", { type: "button", id: "go-test", onclick: () => this.page.show("test") }, "Test it"))]);
    this.#line();
    const [plan, sort] = [this.jobs.of("plan"), this.jobs.of("sort")];
    const running = [plan, sort].some(({ state }) => state === "running");
    this.look.disabled = running || !this.wish.into;
    refill(this.parts.said, [plan, sort, running, this.planned, this.wish], () => this.#said(plan, sort, running));
  }

  /** What the model itself expects, and whether that is enough. */
  #line() {
    const { goal } = this.page.settings;
    const { state, result, problem } = this.jobs.of("forecast");
    refill(this.parts.line, [state, result, problem, goal], () => {
      if (problem) return h("p", { class: "quiet" }, problem);
      if (!result) return state === "running" ? h("p", { class: "quiet" }, "The model looks ahead …") : [];
      const enough = result.find(({ low }) => 100 * low >= goal);
      const [now] = result;
      return [
        h("h2", {}, "What the model expects"),
        h("p", { class: "quiet" }, "Of the pictures without a label, how many of 100 it has right, by its " +
          "own probabilities: a forecast, and no test. In brackets where the truth is four times of five."),
        h("table", { id: "forecast" }, h("caption", { class: "hidden" }, "Forecast"),
          h("thead", {}, h("tr", {}, ["labels", "right of 100"].map((name) => h("th", { scope: "col" }, name)))),
          h("tbody", {}, result.map(({ n_more, value, low, high }) => h("tr", {},
            h("th", { scope: "row" }, n_more ? `${n_more} more` : "now"),
            h("td", {}, `${Math.round(100 * value)} (${Math.floor(100 * low)} to ${Math.ceil(100 * high)})`))))),
        h("label", {}, "Enough are ", h("input", { type: "number", id: "goal", min: 1, max: 100, value: goal,
          "data-focus": "goal", onchange: (event) => this.page.set("goal", Number(event.target.value) || goal) }),
        " of 100"),
        h("p", { class: "big", id: "stop", role: "status" }, enough === now ? "You can stop."
          : enough ? `About ${enough.n_more} more labels should do.` : "More than 100 labels are to come."),
      ];
    });
  }

  #said(plan, sort, running) {
    if (running) {
      return h("p", { role: "status" }, sort.state === "running"
        ? "The photographs are being sorted …" : "The model looks at the photographs …");
    }
    const failed = this.asked && this.page.queue.state && this.jobs.of(this.asked).problem;
    if (failed) return h("p", { class: "notice", role: "alert" }, failed);
    if (this.asked === "sort" && sort.state === "done") {
      const { left_out } = sort.result;
      return [h("p", { role: "status", id: "sorted" }, `They are in ${this.planned.into}.`),
        ...left_out.map((text) => h("p", { class: "notice" }, `Left out: ${text}`))];
    }
    const same = JSON.stringify(this.planned) === JSON.stringify(this.wish);
    if (this.asked !== "plan" || plan.state !== "done" || !same) return [];
    return [h("pre", { id: "plan", tabindex: "0" }, plan.result.said),
      h("p", {}, h("button", { type: "button", id: "sort-go", class: "primary",
        onclick: () => this.#sort("sort") }, `Sort them into ${this.wish.into}`))];
  }

  #sort(name) {
    this.asked = name;
    this.planned = { ...this.wish };
    this.jobs.start(name, this.wish.into, this.wish.how, this.wish.unsure);
  }

  async #labels() {
    try {
      const rows = await this.page.queue.transport.call("labels");
      const url = URL.createObjectURL(new Blob([labelFile(rows)], { type: "text/csv" }));
      h("a", { href: url, download: "labels.csv" }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60000);
    } catch (error) {
      this.page.notice(error.message);
    }
  }
}

/** A path as a shell takes it. */
function quoted(path) {
  return /^[\w./-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`;
}
