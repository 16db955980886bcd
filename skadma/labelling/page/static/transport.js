/**
 * How the page reaches the campaign. Every other module takes such an object, so that
 * the page can be used where there is no server to fetch from:
 *
 *   call(name, body, last) a promise of the answer; rejects with a TransportError;
 *                          `last`: the page is being left, nobody waits for it
 *   picture(sha256, size)  a promise of a Blob
 *   campaign               the id of the page's campaign and person, once it is known
 */

export const SESSION = "skadma:session"; // the token that goes with the cookie, and the receipt
const KEPT = { small: 600, view: 20, full: 2 };

/**
 * Why a call failed: `status` is HTTP's, 0 where nothing was reached. `ours`: it was
 * refused by the campaign, and not by whoever else answers at this address.
 */
export class TransportError extends Error {
  constructor(status, message, ours = false) {
    super(message);
    this.status = status;
    this.ours = ours;
  }
}

function session() {
  try {
    return JSON.parse(localStorage.getItem(SESSION)) ?? {};
  } catch {
    return {};
  }
}

/** The transport of the page that `skadma label` serves. */
export function fetchTransport() {
  const kept = { small: new Map(), view: new Map(), full: new Map() };

  async function request(path, options) {
    // Read each time: another tab may have been let in by the server's next start.
    const { token, receipt } = session();
    const headers = { "X-Skadma": token || "1", ...options.headers };
    if (transport.campaign) headers["X-Skadma-Campaign"] = transport.campaign;
    let response;
    try {
      response = await fetch(path, {
        credentials: "same-origin", cache: "no-store",
        signal: AbortSignal.timeout(30000), ...options, headers,
      });
    } catch {
      throw new TransportError(0, "The server does not answer. If 'skadma label' has ended, start it again.");
    }
    const ours = Boolean(receipt) && response.headers.get("X-Skadma-Receipt") === receipt;
    if (!response.ok) {
      const said = await response.json().catch(() => ({}));
      throw new TransportError(response.status, said.error ?? "No answer of skadma.", ours);
    }
    if (!ours && path !== "/api/session") {
      throw new TransportError(0, "Another program answers at this address.");
    }
    return response;
  }

  const transport = {
    campaign: null,

    async call(name, body, last = false) {
      const options = { keepalive: last };
      if (body !== undefined) {
        options.method = "POST";
        options.headers = { "Content-Type": "application/json" };
        options.body = JSON.stringify(body);
      }
      const response = await request(`/api/${name}`, options);
      try {
        return await response.json();
      } catch {
        throw new TransportError(0, "The answer cannot be read.");
      }
    },

    picture(sha256, size) {
      const latest = kept[size];
      const blob = latest.get(sha256) ??
        request(`/img/${sha256}?size=${size}`, {}).then((response) => response.blob());
      latest.delete(sha256);
      latest.set(sha256, blob); // in the order of use
      if (latest.size > KEPT[size]) latest.delete(latest.keys().next().value);
      blob.catch(() => latest.delete(sha256));
      return blob;
    },

    /** Trade the token of an address for the session's. */
    async enter(token) {
      const { token: own, receipt } = await transport.call("session", { token });
      localStorage.setItem(SESSION, JSON.stringify({ token: own, receipt }));
    },
  };
  return transport;
}
