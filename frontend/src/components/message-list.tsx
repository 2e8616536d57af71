import { memo, useLayoutEffect, useRef } from "react";
import type { SentMessage } from "../connection";
import { API_GATEWAY_ERROR, type Frame } from "../frames";
import type { Entry } from "../messages";

const SENT_STATE: Record<SentMessage["state"], string> = {
  queued: "queued",
  sent: "sent",
  echoed: "echoed",
  unconfirmed: "not confirmed: no echo came, but it may have arrived",
  refused: "refused: larger than the server accepts",
  discarded: "not sent: the connection was closed",
};

const TIME = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

/** All messages, oldest first. A list that is scrolled to its end stays there when messages are added. */
export function MessageList({ entries }: { entries: readonly Entry[] }) {
  const log = useRef<HTMLDivElement>(null);
  const isAtEnd = useRef(true);

  // biome-ignore lint/correctness/useExhaustiveDependencies: each change of the entries may move the end
  useLayoutEffect(() => scrollToEnd(log.current, isAtEnd.current), [entries]);

  useLayoutEffect(() => {
    const observer = new ResizeObserver(() => scrollToEnd(log.current, isAtEnd.current));
    observer.observe(log.current as Element);
    return () => observer.disconnect();
  }, []);

  return (
    <div
      ref={log}
      className="log"
      role="log"
      aria-label="Conversation"
      aria-relevant="additions"
      // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by keyboard
      tabIndex={0}
      onScroll={({ currentTarget: { scrollHeight, scrollTop, clientHeight } }) => {
        isAtEnd.current = scrollHeight - scrollTop - clientHeight < 8;
      }}
    >
      {entries.length === 0 && <p className="empty">Send a message. The server answers with an echo.</p>}
      {entries.map((entry) => (
        <Row key={entry.key} entry={entry} />
      ))}
    </div>
  );
}

const Row = memo(function Row({ entry }: { entry: Entry }) {
  const { direction, text, note, kind } = describeEntry(entry);
  return (
    <div className="entry" data-kind={kind}>
      <span className="direction">{direction}</span>
      <time dateTime={new Date(entry.at).toISOString()}>{TIME.format(entry.at)}</time>
      <span className="text">{text}</span>
      <span className="note">{note}</span>
    </div>
  );
});

interface Description {
  direction: "You" | "Server";
  text: string;
  note: string;
  kind: string;
}

function describeEntry(entry: Entry): Description {
  switch (entry.kind) {
    case "sent": {
      const { text, state } = entry.message;
      return { direction: "You", text, note: SENT_STATE[state], kind: state };
    }
    case "echo": {
      const { text, roundTripMs } = entry.message;
      return { direction: "Server", text, note: `echo after ${Math.round(roundTripMs ?? 0)} ms`, kind: "echo" };
    }
    case "received":
      return { direction: "Server", ...describeFrame(entry.frame) };
  }
}

function describeFrame(frame: Frame): Omit<Description, "direction"> {
  switch (frame.kind) {
    case "error": {
      const note = frame.code === API_GATEWAY_ERROR ? "error of API Gateway" : `error ${frame.code}`;
      return { text: frame.text, note: frame.requestId ? `${note}, request ${frame.requestId}` : note, kind: "error" };
    }
    case "push":
      return { text: frame.text, note: "push", kind: "push" };
    case "echo":
      return { text: frame.text, note: "unexpected echo", kind: "push" };
    case "keepalive":
      return { text: "", note: "keep-alive", kind: "push" };
  }
}

function scrollToEnd(log: HTMLElement | null, wasAtEnd: boolean): void {
  if (log && wasAtEnd) {
    log.scrollTop = log.scrollHeight;
  }
}
