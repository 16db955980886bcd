/**
 * Decisions on their way to the log, in order. They are kept in the browser until the
 * campaign's server says that they are on the disk, over reloads as well; each has a
 * name of its own, so that sending it again changes nothing. What the campaign refuses
 * is kept, too, until somebody has seen it.
 */

const AT_ONCE = 100;

function stored(prefix) {
  const keys = Object.keys(localStorage).filter((key) => key.startsWith(prefix)).sort();
  return keys.flatMap((key) => {
    try {
      return [[key, JSON.parse(localStorage.getItem(key))]];
    } catch {
      return []; // cut off, by a full disk perhaps
    }
  });
}

function isEntry([, entry]) {
  return entry && entry.operation;
}

/** The marks of an operation, with the paths of their pictures. */
function rows({ operation, shown }) {
  const paths = new Map((shown?.items ?? []).map(({ sha256, path }) => [sha256, path]));
  return (operation.marks ?? []).map((mark) => ({ ...mark, path: paths.get(mark.sha256) ?? "" }));
}

export class Outbox extends EventTarget {
  /**
   * @param {{call: Function}} transport
   * @param {string} campaign the id of the campaign and the person
   */
  constructor(transport, campaign) {
    super();
    this.transport = transport;
    this.prefix = `skadma:${campaign}:op:`;
    this.refusals = `skadma:${campaign}:refused:`;
    this.entries = stored(this.prefix).filter(isEntry).map(([, entry]) => entry);
    this.refused = stored(this.refusals).map(([, row]) => row);
    // Decisions about other campaigns, or of other people, that this browser keeps; they
    // are not sent.
    this.others = stored("skadma:")
      .filter(([key]) => /^skadma:[^:]+:op:/.test(key) && !key.startsWith(this.prefix))
      .filter(isEntry)
      .flatMap(([, entry]) => rows(entry));
    this.count = 0;
    this.sending = false;
    this.most = AT_ONCE; // in a request
    this.wait = 0;
    if (this.entries.length) this.#send();
  }

  /** How many are not yet known to be safe. */
  get size() {
    return this.entries.length;
  }

  /**
   * Take an operation.
   * @param {Object} operation without its id
   * @param {Object} [shown] what the strip shows of it meanwhile
   * @returns {string} its id
   */
  add(operation, shown = null) {
    const id = crypto.randomUUID();
    const time = String(Date.now()).padStart(14, "0");
    const key = `${this.prefix}${time}-${String(this.count++).padStart(6, "0")}-${id}`;
    const entry = { key, operation: { id, ...operation }, shown };
    this.entries.push(entry);
    try {
      localStorage.setItem(key, JSON.stringify(entry));
    } catch {
      // No room: it is only in memory then, until the server has it.
    }
    this.#send();
    return id;
  }

  /** Wait until all are safe, or refused. */
  async emptied() {
    while (this.size) await new Promise((done) => setTimeout(done, 50));
  }

  /** Forget what was refused: somebody has seen it. */
  forgetRefused() {
    this.refused = [];
    for (const [key] of stored(this.refusals)) localStorage.removeItem(key);
    this.#tell("refused", {});
  }

  #refuse(refused) {
    for (const row of refused) {
      const key = `${this.refusals}${row.id}:${row.sha256}`;
      if (this.refused.some((other) => other.id === row.id && other.sha256 === row.sha256)) continue;
      this.refused.push(row);
      try {
        localStorage.setItem(key, JSON.stringify(row));
      } catch {
        // No room: it is shown until the page is left.
      }
    }
    if (refused.length) this.#tell("refused", {});
  }

  #remove(entries) {
    const gone = new Set(entries);
    this.entries = this.entries.filter((entry) => !gone.has(entry));
    for (const entry of entries) localStorage.removeItem(entry.key);
  }

  async #send() {
    if (this.sending) return;
    this.sending = true;
    let atOnce = this.most;
    while (this.entries.length) {
      const batch = this.entries.slice(0, atOnce);
      try {
        const operations = batch.map((entry) => entry.operation);
        const answer = await this.transport.call("operations", { operations });
        this.#acknowledge(answer, batch);
        this.wait = 0;
        atOnce = this.most;
      } catch (error) {
        if (error.ours && error.status === 413 && batch.length > 1) {
          this.most = atOnce = Math.floor(batch.length / 2);
          continue;
        }
        // Only the campaign itself refuses; 401 and 409 are about the page.
        if (error.ours && error.status >= 400 && error.status < 500) {
          if (batch.length === 1) {
            const [{ operation }] = batch;
            this.#refuse(rows(batch[0]).map((row) =>
              ({ ...row, id: operation.id, reason: error.message })));
            this.#remove(batch);
            this.#tell("notTaken", { message: error.message });
          }
          atOnce = 1; // find the one that is wrong
          continue;
        }
        this.#tell("unreachable", { status: error.status ?? 0, message: error.message });
        this.wait = Math.min(Math.max(2 * this.wait, 500), 5000);
        await new Promise((resolve) => {
          this.hurry = resolve;
          setTimeout(resolve, this.wait);
        });
      }
    }
    this.sending = false;
  }

  /** What the answer names is on the disk, or was refused. */
  #acknowledge(answer, batch) {
    const outcomes = new Map(answer.outcomes.map((outcome) => [outcome.id, outcome]));
    const done = batch.filter(({ operation }) => outcomes.has(operation.id));
    if (!done.length) throw new Error("The server does not say what it recorded.");
    for (const entry of done) {
      const { id, refused } = outcomes.get(entry.operation.id);
      const reasons = new Map(refused.map(({ sha256, reason }) => [sha256, reason]));
      this.#refuse(rows(entry).filter(({ sha256 }) => reasons.has(sha256))
        .map((row) => ({ ...row, id, reason: reasons.get(row.sha256) })));
    }
    this.#remove(done);
    this.#tell("saved", { answer, batch: done });
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/**
 * Decisions as a label file for 'skadma teach': no cell is a formula in a spreadsheet.
 * @param {Object[]} decisions with path, mark, sha256 and as_of
 */
export function labelFile(decisions) {
  const formula = /^[=+\-@\t\r\n＝＋－＠]/;
  const quoted = (text) => /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const lines = decisions.map(({ path, mark, sha256, as_of }) => [
    formula.test(path) ? `./${path}` : path,
    formula.test(mark.replace(/^'+/, "")) ? `'${mark}` : mark,
    sha256,
    String(as_of ?? ""),
  ].map(quoted).join(","));
  return ["path,label,sha256,as_of", ...lines, ""].join("\n");
}
