/** Calls of the service. What it refuses is a `ProblemError` with the problem document (RFC 9457). */
import { change } from "./store.js";

const KEY = "foi.key";
const RETRIES = 8;

export class ProblemError extends Error {
  /** @param {any} problem @param {number} status 0: the service was not reached @param {number} [retryAfter] seconds */
  constructor(problem, status, retryAfter = 0) {
    super(problem.detail ?? problem.title);
    this.status = status;
    this.retryAfter = retryAfter;
    /** @type {{pointer: string, detail: string}[]} */
    this.errors = problem.errors ?? [];
  }
}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;

/** In this tab only. @param {string} key */
export function setKey(key) {
  sessionStorage.setItem(KEY, key);
  change({ keyNeeded: false });
}

/** @param {number} seconds @param {AbortSignal} [signal] */
export const pause = (seconds, signal) =>
  new Promise((resolve, reject) => {
    setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
  });

/**
 * @param {string} path
 * @param {RequestInit & {headers?: Record<string, string>}} [options]
 * @returns {Promise<Response>} a success
 */
export async function call(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  const answer = await fetch(path, { ...options, headers }).catch((error) => {
    if (options.signal?.aborted) throw error;
    throw new ProblemError({ detail: "The service cannot be reached. Is it running?" }, 0);
  });
  if (answer.ok) return answer;
  if (answer.status === 401) change({ keyNeeded: true });
  const problem = await answer.json().catch(() => ({ detail: `The service answered ${answer.status}.` }));
  throw new ProblemError(problem, answer.status, Number(answer.headers.get("retry-after") ?? 0));
}

/** @param {string} path @param {AbortSignal} [signal] @returns {Promise<any>} */
export const getJson = async (path, signal) => (await call(path, { signal })).json();

/** @param {string} path @param {AbortSignal} [signal] */
export const getBlob = async (path, signal) => (await call(path, { signal })).blob();

/** @param {() => Promise<any>} ask again while the service cannot be reached, longer apart each time */
export async function untilReached(ask) {
  for (let tries = 1; ; tries++) {
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof ProblemError) || error.status !== 0 || tries === RETRIES) throw error;
      await pause(Math.min(0.3 * 2 ** tries, 5));
    }
  }
}

/**
 * Submitted once, however often it has to be sent.
 * @param {string} path @param {FormData} form @returns {Promise<any>} the edit
 */
export function submit(path, form) {
  const once = Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(16)).join("");
  const send = () => call(path, { method: "POST", body: form, headers: { "Idempotency-Key": once } });
  return untilReached(async () => (await send()).json());
}
