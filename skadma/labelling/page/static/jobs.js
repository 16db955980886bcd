/** What the process that trains is asked to do, and how it is. */

const EVERY = 1000;

/** The numbers of the test and the jobs, kept fresh while a view is open. */
export class Jobs {
  /** @param {Object} page  @param {Function} changed */
  constructor(page, changed) {
    this.page = page;
    this.changed = changed;
    this.data = null;
  }

  async open() {
    const turn = (this.turn = {});
    while (this.turn === turn) {
      await this.look();
      await new Promise((resolve) => setTimeout(resolve, EVERY));
    }
  }

  close() {
    this.turn = null;
  }

  async look() {
    try {
      this.data = await this.page.queue.transport.call("test");
    } catch {
      return; // The page says that the server cannot be reached.
    }
    this.changed();
  }

  /** How a job is: "state" is none, running, done or failed. */
  of(name) {
    return this.data?.jobs[name] ?? { state: "none" };
  }

  /** Have something done. */
  async start(name, ...values) {
    try {
      const { jobs } = await this.page.queue.transport.call("job", { name, arguments: values });
      if (this.data) this.data.jobs = jobs;
    } catch (error) {
      this.page.notice(error.message);
    }
    this.changed();
  }
}
