/**
 * How the page reaches the campaign. Every other module takes such an object, so that
 * the page can be used where there is no server to fetch from:
 *
 *   call(name, body, last) a promise of the answer; rejects with a TransportError;
 *                          `last`: the page is being left, nobody waits for it
 *   picture(sha256, size)  what an <img>'s src has to be
 */

/** Why a call failed: `status` is HTTP's, 0 where nothing was reached. */
export class TransportError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The transport of the page that `skadma label` serves. */
export function fetchTransport() {
  async function call(name, body, last = false) {
    const options = { credentials: "same-origin", cache: "no-store" };
    if (body !== undefined) {
      options.method = "POST";
      options.headers = { "Content-Type": "application/json", "X-Skadma": "1" };
      options.body = JSON.stringify(body);
    }
    options.keepalive = last;
    options.signal = AbortSignal.timeout(30000);
    let response, answer;
    try {
      response = await fetch(`/api/${name}`, options);
      answer = await response.json();
    } catch (error) {
      throw new TransportError(0, "The server cannot be reached: has 'skadma label' ended?");
    }
    if (!response.ok) throw new TransportError(response.status, answer.error);
    return answer;
  }
  return { call, picture: (sha256, size) => `/img/${sha256}?size=${size}` };
}
