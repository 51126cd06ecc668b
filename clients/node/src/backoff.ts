// When to try again: full jitter, so that whoever failed together does not come back together.

export const FIRST_BACKOFF_MS = 100;
export const MOST_BACKOFF_MS = 10_000;

/** How long to wait before try number n (1, 2, ...), in ms; at least the time that the broker asked for. */
export function backoff(n: number, atLeastMs = 0): number {
  return atLeastMs + Math.random() * Math.min(MOST_BACKOFF_MS, FIRST_BACKOFF_MS * 2 ** (n - 1));
}
