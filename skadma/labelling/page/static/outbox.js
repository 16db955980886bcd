/**
 * Decisions on their way to the log, in order. They are kept in the browser until the
 * server says that they are on the disk, over reloads as well; each has a name of its
 * own, so that sending it again changes nothing.
 */

const AT_ONCE = 100;

export class Outbox extends EventTarget {
  /**
   * @param {{call: Function}} transport
   * @param {string} campaign its id
   */
  constructor(transport, campaign) {
    super();
    this.transport = transport;
    this.prefix = `skadma:${campaign}:op:`;
    this.entries = this.#stored();
    this.count = 0;
    this.sending = false;
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

  #stored() {
    const keys = [];
    for (let i = 0; i < localStorage.length; i++) keys.push(localStorage.key(i));
    const found = [];
    for (const key of keys.filter((k) => k.startsWith(this.prefix)).sort()) {
      try {
        found.push(JSON.parse(localStorage.getItem(key)));
      } catch {
        localStorage.removeItem(key);
      }
    }
    return found.filter((entry) => entry && entry.operation);
  }

  #remove(entries) {
    const gone = new Set(entries);
    this.entries = this.entries.filter((entry) => !gone.has(entry));
    for (const entry of entries) localStorage.removeItem(entry.key);
  }

  async #send() {
    if (this.sending) return;
    this.sending = true;
    let atOnce = AT_ONCE;
    while (this.entries.length) {
      const batch = this.entries.slice(0, atOnce);
      try {
        const operations = batch.map((entry) => entry.operation);
        const answer = await this.transport.call("operations", { operations });
        this.#remove(batch);
        this.wait = 0;
        atOnce = AT_ONCE;
        this.#tell("saved", { answer, batch });
      } catch (error) {
        if (error.status >= 400 && error.status < 500 && error.status !== 401) {
          if (batch.length === 1) {
            this.#remove(batch);
            this.#tell("refused", { message: error.message });
          }
          atOnce = 1; // find the one that is wrong
          continue;
        }
        this.#tell("unreachable", { status: error.status, message: error.message });
        this.wait = Math.min(Math.max(2 * this.wait, 500), 5000);
        await new Promise((resolve) => setTimeout(resolve, this.wait));
      }
    }
    this.sending = false;
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
