import { useState } from "react";
import { CopyButton } from "./copy-button";
import { formatDuration, formatIso, formatOffset } from "./format";
import { findTraceId, nameIds } from "./ids";
import { escapeHiddenCharacters, formatJson } from "./json";
import { describeEntry } from "./sentences";
import type { Row } from "./timeline";
import { layOut } from "./waterfall";
import { WaterfallTable } from "./waterfall-table";

interface RowProps {
  row: Row;
  connectionId: string;
  /** Unix seconds, from which offsets count. */
  origin: number;
}

/** One entry as a sentence, with its details on demand and with what happened during it. */
export function RowView({ row, connectionId, origin }: RowProps) {
  const [isOpen, setIsOpen] = useState(false);
  const { at, children, documents, entry } = row;
  const sentence = describeEntry(entry);
  const waterfall = documents && layOut(documents);
  const text = waterfall
    ? `Trace: ${waterfall.spans.length} ${waterfall.spans.length === 1 ? "segment" : "segments"} in ${formatDuration(waterfall.duration)}`
    : sentence.text;
  return (
    <li className="row" data-tone={sentence.tone} data-kind={entry.kind}>
      <details onToggle={(event) => setIsOpen(event.currentTarget.open)}>
        <summary>
          {documents ? <span className="offset" /> : <Offset at={at} origin={origin} />}
          <span className="sentence">{text}</span>
        </summary>
        {isOpen && (
          <div className="details">
            {waterfall ? (
              <WaterfallTable waterfall={waterfall} traceId={findTraceId(row)} />
            ) : (
              sentence.blocks.map(({ label, value }) => (
                <section key={label} aria-label={label}>
                  <h4>{label}</h4>
                  {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by keyboard */}
                  <pre tabIndex={0}>{formatJson(value)}</pre>
                </section>
              ))
            )}
            <Ids row={row} connectionId={connectionId} />
          </div>
        )}
      </details>
      {children.length > 0 && (
        <ul className="rows">
          {children.map((child) => (
            <RowView key={child.key} row={child} connectionId={connectionId} origin={origin} />
          ))}
        </ul>
      )}
    </li>
  );
}

export function Offset({ at, origin }: { at: number; origin: number }) {
  return (
    <time className="offset" dateTime={formatIso(at)} title={formatIso(at)}>
      {formatOffset(at - origin)}
    </time>
  );
}

function Ids({ row, connectionId }: { row: Row; connectionId: string }) {
  const ids = nameIds(connectionId, row.entry).filter(({ id }) => id !== connectionId);
  return (
    ids.length > 0 && (
      <dl className="ids">
        {ids.map(({ name, id }) => (
          <div key={id}>
            <dt>{name}</dt>
            <dd>
              <code>{escapeHiddenCharacters(id)}</code> <CopyButton name={name} text={id} />
            </dd>
          </div>
        ))}
      </dl>
    )
  );
}
