import { expect, test } from "vitest";
import { CONNECTION_BURST, createOwnPolicy, POLICIES, REFRESH_RATE, simulate } from "../benchmarks/reconnect-storm";

const STORM = { clients: 2_000, rate: 100, outageSeconds: 3, seed: 7 };
const OUTCOMES = POLICIES.map((policy) => [policy.name, simulate(policy, STORM)] as const);

test.each(POLICIES.map((policy) => [policy.name, policy] as const))(
  "%s: the same seed gives the same result, and another seed gives another one",
  (_, policy) => {
    const outcome = simulate(policy, STORM);

    expect(simulate(policy, STORM)).toEqual(outcome);
    expect(simulate(policy, { ...STORM, seed: 8 }).connectedAt).not.toEqual(outcome.connectedAt);
  },
);

test.each(OUTCOMES)("%s: every client is connected in the end", (_, { connectedAt }) => {
  expect(connectedAt).toHaveLength(STORM.clients);
});

test.each(OUTCOMES)("%s: nobody is accepted during the outage", (_, { acceptedAt }) => {
  expect(Math.min(...acceptedAt)).toBeGreaterThanOrEqual(1_000 * STORM.outageSeconds);
});

test.each(OUTCOMES)("%s: each second accepts at most what the bucket holds and gains", (_, { acceptedAt }) => {
  const inTheFollowingSecond = acceptedAt.map(
    (start) => acceptedAt.filter((time) => time >= start && time < start + 1_000).length,
  );

  expect(Math.max(...inTheFollowingSecond)).toBeLessThanOrEqual(CONNECTION_BURST + STORM.rate);
});

test.each(OUTCOMES)("%s: the total of accepted connections is within the quota", (_, { acceptedAt }) => {
  const seconds = ((acceptedAt.at(-1) ?? 0) - (acceptedAt[0] ?? 0)) / 1_000;

  expect(acceptedAt.length).toBeLessThanOrEqual(CONNECTION_BURST + STORM.rate * seconds + 1);
});

test("Cognito answers refreshes within its quota, and each client calls it at most three times", () => {
  const { refreshCalls, throttledCalls } = simulate(createOwnPolicy(1), STORM);
  const calls = refreshCalls.reduce((sum, count) => sum + count, 0);
  const throttled = throttledCalls.reduce((sum, count) => sum + count, 0);

  expect(throttled).toBeGreaterThan(0);
  expect(calls - throttled).toBeLessThanOrEqual(REFRESH_RATE * (1 + refreshCalls.length));
  expect(calls).toBeLessThanOrEqual(3 * STORM.clients);
});
