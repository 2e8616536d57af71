/**
 * Exponential backoff with full jitter for attempts to connect.
 *
 * API Gateway accepts 500 new connections a second for a whole account. Clients that lose their connections in the
 * same instant must therefore spread their attempts. docs/clients.md has a simulation of this policy.
 */

const BASE_MS = 2_000;
const CAP_MS = 30_000;

/** After this many failures in a row the connection is suspended: it retries slowly. */
export const SUSPEND_AFTER_FAILURES = 6;

/**
 * Return the delay before the next attempt, in milliseconds.
 *
 * @param failures attempts that have failed in a row; 0 after a stable connection was lost.
 */
export function computeRetryDelay(failures: number, random: () => number = Math.random): number {
  if (failures >= SUSPEND_AFTER_FAILURES) {
    return CAP_MS * (0.5 + random());
  }
  return Math.min(CAP_MS, BASE_MS * 2 ** failures) * random();
}

/**
 * Tell whether to refresh the token before the next attempt, because the server may have refused it.
 *
 * A token that the server has accepted before is refreshed only when the connection is suspended. After an outage, most
 * refusals come from the rate limit, and Cognito's quota is smaller than API Gateway's.
 */
export function shouldRefreshToken(failures: number, wasAccepted: boolean): boolean {
  return failures >= (wasAccepted ? SUSPEND_AFTER_FAILURES : 1);
}
