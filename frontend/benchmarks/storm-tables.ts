/** The results of the simulation as Markdown tables. */

import type { Outcome } from "./reconnect-storm";

export function formatPolicyTable(outcomes: readonly Outcome[]): string {
  return formatTable(
    ["Policy", "99 % back", "All back", "Busiest second", "Refused", "Calls to Cognito", "Throttled"],
    outcomes.map((outcome) => [
      outcome.policy.name,
      `${formatRecoveryTime(outcome, 0.99)} s`,
      `${formatRecoveryTime(outcome, 1)} s`,
      formatCount(findMaximum(outcome.attempts)),
      formatCount(sum(outcome.attempts) - outcome.acceptedAt.length),
      formatCount(sum(outcome.refreshCalls)),
      formatCount(sum(outcome.throttledCalls)),
    ]),
  );
}

/** Compare when to refresh the token: `outcomes` differ in `refreshAfterFailures` only. */
export function formatRefreshTable(outcomes: readonly Outcome[]): string {
  return formatTable(
    [
      "Failures before the refresh",
      "Calls to Cognito",
      "Throttled",
      "Busiest second",
      "Seconds with throttling",
      "All back",
    ],
    outcomes.map((outcome) => [
      String(outcome.policy.refreshAfterFailures),
      formatCount(sum(outcome.refreshCalls)),
      formatCount(sum(outcome.throttledCalls)),
      formatCount(findMaximum(outcome.refreshCalls)),
      formatCount(outcome.throttledCalls.filter((calls) => calls > 0).length),
      `${formatRecoveryTime(outcome, 1)} s`,
    ]),
  );
}

/** Return how many seconds after the end of the outage this share of the clients was connected. */
export function formatRecoveryTime({ connectedAt, storm }: Outcome, share: number): string {
  const time = connectedAt[Math.ceil(share * storm.clients) - 1];
  return time === undefined ? "never" : (time / 1_000 - storm.outageSeconds).toFixed(1);
}

export function formatCount(count: number): string {
  return count.toLocaleString("en-US");
}

function findMaximum(counts: readonly number[]): number {
  return Math.max(0, ...counts);
}

function sum(counts: readonly number[]): number {
  return counts.reduce((total, count) => total + count, 0);
}

function formatTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const rule = `|${head.map((_, column) => (column === 0 ? "---" : "---:")).join("|")}|`;
  return [line(head), rule, ...rows.map(line)].join("\n");
}
