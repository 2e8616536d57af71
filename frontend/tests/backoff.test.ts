import fc from "fast-check";
import { expect, test } from "vitest";
import { computeRetryDelay, SUSPEND_AFTER_FAILURES, shouldRefreshToken } from "../src/backoff";

const anyRandom = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });

test("the delay is between zero and the exponential limit: full jitter", () => {
  expect([0, 1, 2, 3, 4, 5].map((failures) => computeRetryDelay(failures, () => 0))).toEqual([0, 0, 0, 0, 0, 0]);
  expect([0, 1, 2, 3, 4, 5].map((failures) => computeRetryDelay(failures, () => 1))).toEqual([
    2_000, 4_000, 8_000, 16_000, 30_000, 30_000,
  ]);
});

test("a suspended connection waits 15 to 45 s, however many attempts have failed", () => {
  fc.assert(
    fc.property(fc.integer({ min: SUSPEND_AFTER_FAILURES, max: 100_000 }), anyRandom, (failures, random) => {
      const delay = computeRetryDelay(failures, () => random);
      expect(delay).toBeGreaterThanOrEqual(15_000);
      expect(delay).toBeLessThanOrEqual(45_000);
    }),
  );
});

test("a token is refreshed after one failure, or after six if it was accepted before", () => {
  const failures = [0, 1, 5, 6];

  expect(failures.map((count) => shouldRefreshToken(count, false))).toEqual([false, true, true, true]);
  expect(failures.map((count) => shouldRefreshToken(count, true))).toEqual([false, false, false, true]);
});
