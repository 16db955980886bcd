/** Where things stand, to look at. */

import { h, hue, markName, refill, smallPicture, svg } from "./dom.js";

const EVERY = 5000;

export class Progress {
  /** @param {Object} page the queue and `announce` */
  constructor(page) {
    this.page = page;
    this.data = null;
    this.parts = Object.fromEntries(
      ["sums", "classes", "pace", "curve", "suspects", "unclear", "agreement"]
        .map((name) => [name, h("div", { id: `part-${name}` })]));
    this.element = h("section", { class: "progress", "aria-label": "Progress" },
      Object.values(this.parts));
  }

  get ahead() {
    return 6;
  }

  /** Ask for the numbers while the view is open. */
  async open() {
    const turn = (this.turn = {});
    while (this.turn === turn) {
      try {
        this.data = await this.page.queue.transport.call("progress");
      } catch {
        // The page says that the server cannot be reached.
      }
      this.render();
      await new Promise((resolve) => setTimeout(resolve, EVERY));
    }
  }

  close() {
    this.turn = null;
  }

  act() {
    return false;
  }

  render() {
    const { state } = this.page.queue;
    if (!state) return;
    const { counts, aside, n_images, n_labels, n_known } = state;
    const n_decided = this.page.queue.nDecided;
    refill(this.parts.sums, [n_images, n_decided, n_labels, n_known], () =>
      h("dl", { class: "sums" }, [
        ["decided", `${n_decided} of ${n_images}`],
        ["labels", n_labels],
        ["known to the model", n_known],
      ].map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))));
    refill(this.parts.classes, [counts, aside], () => [
      h("h2", {}, "Labels by class"), bars({ ...counts, ...aside }, this.page.queue.about.classes)]);
    if (!this.data) return;
    const { pace, curve, cant_tell, suspects, agreement, people } = this.data;
    refill(this.parts.pace, pace, () => [h("h2", {}, "Pace"), paceTable(pace)]);
    refill(this.parts.curve, curve, () => [h("h2", {}, "Right before the label came"),
      h("p", { class: "quiet" }, "Of the pictures of each query, the share that the " +
        "model had right before it knew the label. They were chosen for being hard: " +
        "this is no estimate of the accuracy on all pictures."),
      curveFigure(curve)]);
    const { classes, several } = this.page.queue.about;
    if (!several) refill(this.parts.suspects, [suspects, classes], () => [
      h("h2", {}, `Worth a second look (${suspects.n})`),
      h("p", { class: "quiet" }, "Labels that a model trained without them doubts, or " +
        "about which somebody said something else."),
      suspects.n ? h("button", { type: "button", "data-focus": "second",
        onclick: () => this.page.show("second") }, "Look at them") : null]);
    refill(this.parts.unclear, [cant_tell, classes], () => [
      h("h2", {}, `Can't tell (${cant_tell.n})`),
      h("p", { class: "quiet" }, "Somebody could not tell by looking. Perhaps you can."),
      this.#list(cant_tell.items.map((item) => ({
        ...item, note: `${markName(item.before)}, says ${item.by}` })))]);
    refill(this.parts.agreement, [agreement, people], () => [h("h2", {}, "Agreement"),
      agreementTable(agreement), people.length ? peopleTable(people) : null]);
  }

  /** Pictures with buttons to decide about each. */
  #list(items) {
    const { queue } = this.page;
    if (!items.length) return h("p", {}, "None.");
    const button = (item, mark) => h("button", { type: "button",
      class: `choice small ${hue(queue.about.classes, mark).class}`,
      "aria-label": `${mark}: ${item.path}`,
      onclick: (event) => {
        queue.decide([{ ...item, mark }], "list");
        event.target.closest("li").remove();
        this.page.announce(`${item.path}: ${mark}`);
      } }, h("span", { ...hue(queue.about.classes, mark), class: "" }, mark));
    return h("ul", { class: "list" }, items.map((item) => h("li", { "data-sha256": item.sha256 },
      smallPicture(queue.transport, item.sha256, item.path),
      h("p", { class: "name" }, item.path),
      h("p", { class: "quiet" }, item.note),
      h("div", { class: "choices", role: "group", "aria-label": `Label of ${item.path}` },
        // Where a label may be several classes, 'skadma relabel' gives it.
        queue.about.several ? [] : queue.about.classes.map((name) => button(item, name))))));
  }
}

function bars(counts, classes) {
  const most = Math.max(1, ...Object.values(counts));
  return h("table", { class: "bars" }, h("caption", { class: "hidden" }, "Labels by class"),
    h("tbody", {}, Object.entries(counts).map(([name, n]) => {
      const { class: color, ...sign } = hue(classes, name);
      return h("tr", { class: color || "quiet" },
        h("th", { scope: "row", ...sign }, markName(name)), h("td", { class: "n" }, n),
        h("td", { "aria-hidden": "true" },
          svg("svg", { class: "bar", viewBox: "0 0 100 8", preserveAspectRatio: "none" },
            svg("rect", { x: 0, y: 0, width: (100 * n) / most, height: 8, rx: 1 }))));
    })));
}

function table(caption, head, rows) {
  return h("table", {}, h("caption", { class: "hidden" }, caption),
    h("thead", {}, h("tr", {}, head.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, rows.map((row) => h("tr", {},
      row.map((cell, i) => i ? h("td", { class: "n" }, cell) : h("th", { scope: "row" }, cell))))));
}

function paceTable(pace) {
  if (!pace.length) return h("p", {}, "Nothing was timed yet.");
  return table("Pace", ["who", "labels", "minutes", "per hour", "seconds each"],
    pace.map(({ who, n_labels, hours, per_hour }) => [who, n_labels, (60 * hours).toFixed(1),
      Math.round(per_hour), (3600 / per_hour).toFixed(1)]));
}

function agreementTable(pairs) {
  if (!pairs.length) {
    return h("p", { class: "quiet" }, "No picture was answered twice yet: " +
      "'skadma repeats' chooses some to label again, also by other people.");
  }
  const range = ([low, high]) => `${low.toFixed(2)} to ${high.toFixed(2)}`;
  return table("Agreement", ["who", "pictures", "the same", "Cohen's kappa", "95 %"],
    pairs.map(({ first, second, n, n_agree, kappa, kappa_interval }) => [
      first === second ? `${first}, again` : `${first} and ${second}`, n, n_agree,
      kappa === null ? "–" : kappa.toFixed(2),
      kappa_interval === null ? "–" : range(kappa_interval)]));
}

/** How often each person is right, as far as the others and the model tell. */
function peopleTable(people) {
  const share = (x) => `${Math.round(100 * x)} %`;
  return table("People", ["who", "answers", "right", "95 %"], people.map(
    ({ who, n, right, low, high }) => [who, n, share(right), `${share(low)} to ${share(high)}`]));
}

function curveFigure(curve) {
  if (!curve.length) return h("p", {}, "No query of a trained model was answered yet.");
  const most = Math.max(1, ...curve.map(([labels]) => labels));
  const x = (labels) => 44 + (536 * labels) / most;
  const y = (share) => 12 + 168 * (1 - share);
  const points = curve.map(([labels, answered, right]) =>
    [x(labels), y(right / answered), `${labels} labels: ${right} of ${answered} right`]);
  return h("div", { class: "curve" },
    svg("svg", { viewBox: "0 0 600 212", "aria-hidden": "true" },
      [0, 0.25, 0.5, 0.75, 1].map((share) => [
        svg("line", { class: "rule", x1: 44, x2: 580, y1: y(share), y2: y(share) }),
        svg("text", { x: 38, y: y(share) + 4, "text-anchor": "end" }, `${100 * share} %`)]).flat(),
      svg("polyline", { class: "line", points: points.map(([a, b]) => `${a},${b}`).join(" ") }),
      points.map(([cx, cy, title]) => svg("circle", { class: "dot", cx, cy, r: 4 },
        svg("title", {}, title))),
      svg("text", { x: 44, y: 206 }, "0"),
      svg("text", { x: 580, y: 206, "text-anchor": "end" }, `${most} labels`)),
    h("details", {}, h("summary", {}, "as a table"),
      table("Right before the label came", ["labels", "answered", "right"],
        curve)));
}
