import { type ReactNode, useEffect, useMemo, useRef, useState } from "react";
import type { Connection, Entry } from "./api";
import { CopyButton } from "./copy-button";
import type { End } from "./end";
import { formatCount, formatDuration } from "./format";
import { nameIds } from "./ids";
import type { TimelineState } from "./journal";
import { escapeHiddenCharacters } from "./json";
import { Time } from "./list-page";
import type { Reason } from "./reasons";
import { formatRoute } from "./route";
import { Offset, RowView } from "./row-view";
import { nameCloseCode } from "./sentences";
import { buildTimeline, type Step } from "./timeline";

const SHOWN_STEPS = 200;
/** The server's limit for the entries of one timeline. */
const MAX_ENTRIES = 1000;
const ANNOUNCE_MS = 10_000;

interface ConnectionPageProps {
  id: string;
  /** undefined before the journal has begun to load it. */
  timeline: TimelineState | undefined;
  summary: Connection | undefined;
  /** The search to return to. */
  search: string;
}

/** How one connection ended, and everything that happened to it. */
export function ConnectionPage({ id, timeline, summary, search }: ConnectionPageProps) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus(), []);
  const { entries, problem } = timeline ?? {};
  return (
    <>
      <p>
        <a href={formatRoute({ page: "list", search })}>← {search === "" ? "All connections" : "Back to the search"}</a>
      </p>
      <div className="connection-head">
        <h2 ref={heading} tabIndex={-1}>
          Connection <code>{escapeHiddenCharacters(id)}</code>
        </h2>
        <CopyButton name="Connection id" text={id} />
      </div>
      {problem !== undefined && <ProblemNotice problem={problem} hasEntries={entries !== undefined} />}
      {entries && <ConnectionDetails id={id} entries={entries} summary={summary} />}
    </>
  );
}

function ProblemNotice({ problem, hasEntries }: { problem: string; hasEntries: boolean }) {
  if (problem !== "unknown") {
    return hasEntries ? null : <p className="nothing">This connection could not be loaded.</p>;
  }
  return (
    <p className="nothing">
      {hasEntries
        ? "The local run does not know this connection any more. The page shows what it loaded before."
        : "The journal has no connection with this id. It keeps the latest 20,000 steps of this local run."}
    </p>
  );
}

interface ConnectionDetailsProps {
  id: string;
  entries: readonly Entry[];
  summary: Connection | undefined;
}

function ConnectionDetails({ id, entries, summary }: ConnectionDetailsProps) {
  const { steps, openedAt, end } = useMemo(() => buildTimeline(id, entries), [id, entries]);
  const [shown, setShown] = useState(SHOWN_STEPS);
  const announcement = useAnnouncement(steps.length, end);
  const origin = openedAt ?? 0;
  const hidden = Math.max(0, steps.length - shown);
  const visible = hidden === 0 ? steps : [...steps.slice(0, 1), ...steps.slice(1 + hidden)];
  const user = summary?.userId ?? findUser(id, entries);
  return (
    <>
      <EndCard end={end} openedAt={openedAt}>
        {user !== undefined && (
          <Fact name="User">
            <code>{escapeHiddenCharacters(user)}</code> <CopyButton name="User" text={user} />
          </Fact>
        )}
        {openedAt !== undefined && (
          <Fact name={end.state === "refused" ? "Refused" : "Opened"}>
            <Time at={openedAt} />
          </Fact>
        )}
        {summary && end.state !== "refused" && (
          <Fact name="Messages">
            {formatCount(summary.messages)}
            {summary.errors > 0 && `, ${formatCount(summary.errors)} ${summary.errors === 1 ? "error" : "errors"}`}
          </Fact>
        )}
      </EndCard>
      <p role="status" className="visually-hidden">
        {announcement}
      </p>
      <h3 className="timeline-head">Timeline</h3>
      {entries.length >= MAX_ENTRIES && (summary?.messages ?? 0) > countMessages(entries) && (
        <p className="nothing">
          Older messages are missing: the timeline has the latest {formatCount(MAX_ENTRIES)} entries and the handshake.
        </p>
      )}
      <ol className="steps">
        {visible.map((step, index) => (
          <StepView key={step.key} step={step} connectionId={id} origin={origin}>
            {index === 0 && hidden > 0 && (
              <button type="button" className="secondary earlier" onClick={() => setShown(shown + 5 * SHOWN_STEPS)}>
                Show earlier steps ({formatCount(hidden)} are hidden)
              </button>
            )}
          </StepView>
        ))}
      </ol>
    </>
  );
}

/** Whether, why and when the connection ended, which is what most readers look for. */
function EndCard({ end, openedAt, children }: { end: End; openedAt: number | undefined; children: ReactNode }) {
  const { state, title, tone, at, reason, meaning, code } = end;
  return (
    <section className="end-card" data-tone={tone} aria-label="How it ended">
      <p className="end-title">{title}</p>
      {reason ? <ReasonLine reason={reason} /> : meaning && <p>{meaning}</p>}
      <dl className="facts">
        {state === "ended" && at !== undefined && (
          <Fact name="Ended">
            <Time at={at} />
            {openedAt !== undefined && `, after ${formatDuration(Math.max(0, at - openedAt))}`}
            {code !== undefined && `, close code ${nameCloseCode(code)}`}
          </Fact>
        )}
        {children}
      </dl>
    </section>
  );
}

function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

export function ReasonLine({ reason: { text, code, source } }: { reason: Reason }) {
  return (
    <p className="reason">
      <strong>Reason:</strong> {escapeHiddenCharacters(text)}
      {code !== undefined && code !== text && (
        <>
          {" "}
          (<code>{escapeHiddenCharacters(code)}</code>)
        </>
      )}{" "}
      <span className="source">from {escapeHiddenCharacters(source)}</span>
    </p>
  );
}

interface StepProps {
  step: Step;
  connectionId: string;
  origin: number;
  /** Shown after the step. */
  children: ReactNode;
}

function StepView({ step, connectionId, origin, children }: StepProps) {
  const { at, title, tone, reason, rows } = step;
  return (
    <li className="step" data-tone={tone}>
      <div className="step-head">
        <Offset at={at} origin={origin} />
        <h4>{title}</h4>
      </div>
      {reason && <ReasonLine reason={reason} />}
      <ul className="rows">
        {rows.map((row) => (
          <RowView key={row.key} row={row} connectionId={connectionId} origin={origin} />
        ))}
      </ul>
      {children}
    </li>
  );
}

/** Announce the end at once, and new steps together every ten seconds. */
function useAnnouncement(count: number, end: End): string {
  const [announcement, setAnnouncement] = useState("");
  const announced = useRef(count);
  const latest = useRef(count);
  const wasOpen = useRef(end.state === "live" || end.state === "opening");
  latest.current = count;

  useEffect(() => {
    const timer = setInterval(() => {
      const added = latest.current - announced.current;
      announced.current = latest.current;
      if (added > 0) {
        setAnnouncement(added === 1 ? "1 new step" : `${added} new steps`);
      }
    }, ANNOUNCE_MS);
    return () => clearInterval(timer);
  }, []);

  useEffect(() => {
    const hasEnded = end.state === "ended" || end.state === "refused";
    if (wasOpen.current && hasEnded) {
      wasOpen.current = false;
      setAnnouncement(end.title);
    }
  }, [end.state, end.title]);

  return announcement;
}

function countMessages(entries: readonly Entry[]): number {
  return entries.filter(({ kind }) => kind === "message").length;
}

function findUser(connectionId: string, entries: readonly Entry[]): string | undefined {
  const decision = entries.find(({ kind }) => kind === "decision");
  return decision && nameIds(connectionId, decision).find(({ name }) => name === "User")?.id;
}
