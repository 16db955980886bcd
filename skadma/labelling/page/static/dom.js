/** Elements. Names of files and classes become text, never HTML. */

/**
 * Make an element.
 * @param {string} tag
 * @param {Object<string, any>} [properties] "class", "on" + event, "data-", "aria-" and
 *   other attributes; null and false leave one out.
 * @param {...(Node|string|number|null)} children
 */
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function svg(tag, properties = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  return fill(element, properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

/** Replace an element's children only if `key` is not that of the last time. */
export function refill(element, key, make) {
  const text = JSON.stringify(key);
  if (element.dataset.key === text) return;
  element.dataset.key = text;
  const focused = element.contains(document.activeElement)
    ? document.activeElement.dataset.focus
    : undefined;
  element.replaceChildren(...[make()].flat().filter(Boolean));
  if (focused !== undefined) {
    element.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
  }
}

const SIGNS = ["◆", "●", "▲", "■", "★", "✚", "♥", "♣"];

/**
 * What shows a class beside its name, as properties: a colour, and a sign from the ninth
 * class on, as there are eight colours; neither for what is no class.
 */
export function hue(classes, name) {
  const at = classes.indexOf(name);
  if (at < 0) return { class: "" };
  let sign = "";
  for (let round = Math.floor(at / 8); round > 0; round = Math.floor((round - 1) / 8)) {
    sign += SIGNS[(round - 1) % 8];
  }
  return { class: `hue${at % 8}`, "data-sign": sign || null };
}

/** A value that an object has itself: a class may be called "constructor". */
export function own(object, name) {
  return object && Object.hasOwn(object, name) ? object[name] : undefined;
}

let several = false;

/** Whether a label may be several classes. */
export function allowSeveral(allowed) {
  several = allowed;
}

/** The classes in a label; none in a mark such as "?skip". */
export function classesIn(mark) {
  if (!mark || mark.startsWith("?")) return [];
  return several ? mark.split(";") : [mark];
}

/** The label of several classes, in the order of all; those that are no more come last. */
export function joined(names, classes) {
  const gone = names.filter((name) => !classes.includes(name));
  return [...classes.filter((name) => names.includes(name)), ...gone].join(";") || "?none";
}

/** How a mark reads. */
export function markName(mark) {
  const names = {
    "?skip": "skipped",
    "?cant-tell": "can't tell",
    "?not-an-image": "not an image",
    "?none": "none of them",
  };
  return own(names, mark) ?? (classesIn(mark).join(" + ") || mark);
}

/**
 * Show a picture in an <img>. No address of one opens without the page's token, so the
 * picture is fetched and shown from memory.
 * @param {HTMLImageElement} image
 * @param {Promise<Blob>} picture
 * @returns {Promise} that it can be painted
 */
export async function showPicture(image, picture) {
  const asked = (image.asked = {});
  const url = URL.createObjectURL(await picture);
  try {
    if (image.asked !== asked) return; // another one was asked for meanwhile
    image.src = url;
    await image.decode().catch((error) => {
      if (!image.complete || !image.naturalWidth) throw error;
    });
  } finally {
    URL.revokeObjectURL(url);
  }
}

/** Whether an error says that a picture can be seen by nobody; else it is to be tried again. */
export function isBroken({ ours, status, name }) {
  return (ours && [404, 410].includes(status)) || name === "EncodingError";
}

/** A new <img> of a picture by content, small. */
export function smallPicture(transport, sha256, alt) {
  const image = h("img", { alt, "data-sha256": sha256 });
  showPicture(image, transport.picture(sha256, "small")).catch(() => {});
  return image;
}
