/** Find the reason for a refusal, a failure or an end: in a function's log, its error, or API Gateway's own reason. */

import type { Entry } from "./api";
import { type Facts, isObject, parseObject, toText } from "./json";
import { explainReason } from "./reason-codes";
import { describeError } from "./sentences";
import type { Row } from "./timeline";

/** Why something happened, as far as the journal knows. */
export interface Reason {
  readonly text: string;
  /** The code in a function's log. */
  readonly code?: string;
  /** Where the reason comes from, for example "the log of authorizer". */
  readonly source: string;
}

/** Return the reason from a step's log records, or else from a function's error, or else from API Gateway. */
export function findReason(head: Entry, rows: readonly Row[]): Reason | undefined {
  const failed = rows.find(({ entry }) => entry.kind === "invocation" && describeError(entry.facts) !== undefined);
  const error = failed && describeError(failed.entry.facts);
  for (const { entry } of rows) {
    const reason = entry.kind === "log" ? findLogReason(entry.facts) : undefined;
    // Prefer the error to a log record that only names the error's type.
    if (reason && !error?.startsWith(`${reason.code}:`)) {
      return reason;
    }
  }
  if (failed && error !== undefined) {
    return { text: error, source: `the error of ${toText(failed.entry.facts.function) ?? "a function"}` };
  }
  // API Gateway itself may have refused the handshake or the message.
  const decision = rows.find(({ entry }) => entry.kind === "decision")?.entry;
  const text = toText((decision ?? head).facts.reason);
  return head.kind === "end" || text === undefined ? undefined : { text, source: "API Gateway" };
}

function findLogReason(facts: Facts): Reason | undefined {
  const record = isObject(facts.record) ? facts.record : parseObject(facts.record);
  const code = toText(record.reason);
  if (code === undefined) {
    return undefined;
  }
  const endedBy = toText(record.endedBy);
  const text = explainReason(code) ?? code;
  return {
    text: endedBy ? `${text}: ${endedBy}` : text,
    code,
    source: `the log of ${toText(facts.function) ?? "a function"}`,
  };
}
