/** Whether, how and why a connection has ended. */

import type { Entry } from "./api";
import { shorten, toNumber, toText } from "./json";
import type { Reason } from "./reasons";
import { describeCause, makeHandshakeTitle, nameCaller, type Tone } from "./sentences";
import { type Step, walk } from "./timeline";

export interface End {
  readonly state: "opening" | "live" | "refused" | "ended";
  readonly title: string;
  readonly tone: Tone;
  readonly at: number | undefined;
  readonly reason: Reason | undefined;
  /** What the cause means. */
  readonly meaning: string | undefined;
  readonly code: string | undefined;
}

export function explainEnd(entries: readonly Entry[], steps: readonly Step[]): End {
  const end = entries.find(({ kind }) => kind === "end");
  const decision = entries.find(({ kind }) => kind === "decision");
  const status = toNumber(decision?.facts.status);
  if (decision && status !== undefined && status !== 101) {
    const { text: title, tone } = makeHandshakeTitle(decision.facts);
    return { ...NOT_ENDED, state: "refused", title, tone, at: decision.at, reason: findStep(steps, decision)?.reason };
  }
  if (end) {
    const { text, tone, meaning } = describeCause(toText(end.facts.cause));
    const closer = entries.filter(({ kind, facts }) => kind === "management" && facts.method === "DELETE").at(-1);
    const caller = end.facts.cause === "@connections DELETE" ? nameCaller(closer?.facts.caller) : undefined;
    return {
      state: "ended",
      title: caller ? `${text}, called by ${shorten(caller)}` : text,
      tone,
      at: end.at,
      reason: findStep(steps, end)?.reason,
      meaning,
      code: toText(end.facts.code),
    };
  }
  return decision ? { ...NOT_ENDED, state: "live", title: "Open, live", tone: "good" } : NOT_ENDED;
}

const NOT_ENDED: End = {
  state: "opening",
  title: "Opening",
  tone: "plain",
  at: undefined,
  reason: undefined,
  meaning: undefined,
  code: undefined,
};

function findStep(steps: readonly Step[], wanted: Entry): Step | undefined {
  return steps.find(({ rows }) => [...walk(rows)].some(({ entry }) => entry === wanted));
}
