import { makeTraceUrl } from "./api";
import { formatDuration, formatOffset } from "./format";
import { shorten } from "./json";
import type { Waterfall } from "./waterfall";

const MAX_INDENT = 8;

/** The segments of a trace with their bars; screen readers get the numbers. */
export function WaterfallTable({ waterfall, traceId }: { waterfall: Waterfall; traceId: string | undefined }) {
  return (
    <>
      {waterfall.spans.length > 0 && (
        <table className="waterfall">
          <caption className="visually-hidden">Segments of the trace</caption>
          <thead>
            <tr>
              <th scope="col">Segment</th>
              <th scope="col" className="number">
                Start
              </th>
              <th scope="col" className="number">
                Duration
              </th>
              <td aria-hidden="true" />
            </tr>
          </thead>
          <tbody>
            {waterfall.spans.map(({ id, name, depth, start, duration, hasFailed, note, bar }) => (
              <tr key={id} data-failed={hasFailed}>
                <th scope="row" style={{ paddingInlineStart: `${Math.min(depth, MAX_INDENT)}rem` }}>
                  {shorten(name)}
                  {hasFailed && <span className="failed"> failed</span>}
                  {note && <span className="note-of-span"> {shorten(note)}</span>}
                </th>
                <td className="number">{formatOffset(start)}</td>
                <td className="number">{duration === undefined ? "running" : formatDuration(duration)}</td>
                <td aria-hidden="true" className="track">
                  <span className="bar" style={{ left: `${bar.left}%`, width: `${bar.width}%` }} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {traceId !== undefined && (
        <p>
          <a href={makeTraceUrl(traceId)} download={`trace-${traceId}.json`}>
            Save the trace as JSON
          </a>
        </p>
      )}
    </>
  );
}
