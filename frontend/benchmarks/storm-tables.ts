/** The results of the simulation as Markdown tables. */

import type { Outcome } from "./reconnect-storm";

export function policyTable(outcomes: readonly Outcome[]): string {
  return table(
    ["Policy", "99 % back", "All back", "Busiest second", "Refused", "Calls to Cognito", "Throttled"],
    outcomes.map((outcome) => [
      outcome.policy.name,
      `${backAfter(outcome, 0.99)} s`,
      `${backAfter(outcome, 1)} s`,
      whole(busiest(outcome.attempts)),
      whole(sum(outcome.attempts) - outcome.acceptedAt.length),
      whole(sum(outcome.refreshCalls)),
      whole(sum(outcome.throttledCalls)),
    ]),
  );
}

/** What the moment of the refresh costs: `outcomes` differ in `refreshAfterFailures` only. */
export function refreshTable(outcomes: readonly Outcome[]): string {
  return table(
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
      whole(sum(outcome.refreshCalls)),
      whole(sum(outcome.throttledCalls)),
      whole(busiest(outcome.refreshCalls)),
      whole(outcome.throttledCalls.filter((calls) => calls > 0).length),
      `${backAfter(outcome, 1)} s`,
    ]),
  );
}

/** Return how many seconds after the end of the outage this share of the clients was connected. */
export function backAfter({ connectedAt, storm }: Outcome, share: number): string {
  const time = connectedAt[Math.ceil(share * storm.clients) - 1];
  return time === undefined ? "never" : (time / 1_000 - storm.outageSeconds).toFixed(1);
}

export function whole(count: number): string {
  return count.toLocaleString("en-US");
}

function busiest(counts: readonly number[]): number {
  return Math.max(0, ...counts);
}

function sum(counts: readonly number[]): number {
  return counts.reduce((total, count) => total + count, 0);
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const rule = `|${head.map((_, column) => (column === 0 ? "---" : "---:")).join("|")}|`;
  return [line(head), rule, ...rows.map(line)].join("\n");
}
