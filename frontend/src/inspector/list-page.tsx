import { memo, useEffect, useState } from "react";
import type { Connection } from "./api";
import { formatCount, formatIso, formatTime } from "./format";
import type { ListState } from "./journal";
import { escapeHiddenCharacters } from "./json";
import { formatRoute } from "./route";

interface ListPageProps {
  list: ListState;
  /** The connection whose timeline was shown before. */
  previousId: string | undefined;
}

/** The connections that match the search, the newest first. */
export function ListPage({ list, previousId }: ListPageProps) {
  const { search, connections } = list;
  const count = describeCount(list);
  const announcement = useAnnouncedCount(search, count);

  // biome-ignore lint/correctness/useExhaustiveDependencies: the focus returns once, when the list comes back
  useEffect(() => {
    if (previousId !== undefined && document.activeElement === document.body) {
      document.getElementById(makeLinkId(previousId))?.focus();
    }
  }, []);

  return (
    <>
      <h2 className="list-head" id="list-heading">
        Connections <span className="count">{count}</span>
      </h2>
      <p role="status" className="visually-hidden">
        {announcement}
      </p>
      {search !== undefined && connections.length === 0 ? (
        <EmptyList list={list} />
      ) : (
        connections.length > 0 && <ConnectionTable connections={connections} />
      )}
    </>
  );
}

export function describeCount({ search, connections, total }: ListState): string {
  if (search === undefined) {
    return "";
  }
  if (total > connections.length) {
    return `${formatCount(connections.length)} of ${formatCount(total)}: search to narrow`;
  }
  return search === "" ? formatCount(total) : `${formatCount(total)} found`;
}

/** Announce the count when the search has changed, but not at every new connection. */
function useAnnouncedCount(search: string | undefined, count: string): string {
  const [announcement, setAnnouncement] = useState("");
  // biome-ignore lint/correctness/useExhaustiveDependencies: a count that changes by itself is not announced
  useEffect(() => setAnnouncement(search ? count : ""), [search]);
  return announcement;
}

function EmptyList({ list: { search, problem } }: { list: ListState }) {
  if (problem !== undefined) {
    return null; // the notice above says why
  }
  return (
    <p className="nothing">
      {search ? (
        <>
          Nothing has the id <code>{escapeHiddenCharacters(search)}</code>. The journal keeps the latest 20,000 steps.
        </>
      ) : (
        "No connection yet. Connect with the page or with a client of your own, and it appears here."
      )}
    </p>
  );
}

function ConnectionTable({ connections }: { connections: readonly Connection[] }) {
  return (
    <table className="connections" aria-labelledby="list-heading">
      <thead>
        <tr>
          <th scope="col">Connection</th>
          <th scope="col">Status</th>
          <th scope="col">User</th>
          <th scope="col">Opened</th>
          <th scope="col">Ended</th>
          <th scope="col" className="number">
            Messages
          </th>
          <th scope="col" className="number">
            Errors
          </th>
        </tr>
      </thead>
      <tbody>
        {connections.map((connection) => (
          <ConnectionRow key={connection.id} connection={connection} />
        ))}
      </tbody>
    </table>
  );
}

const ConnectionRow = memo(function ConnectionRow({ connection }: { connection: Connection }) {
  const { id, userId, openedAt, endedAt, cause, messages, errors } = connection;
  const { state, text } = describeState(connection);
  return (
    <tr data-state={state}>
      <th scope="row">
        <a id={makeLinkId(id)} href={formatRoute({ page: "connection", id })}>
          <code>{escapeHiddenCharacters(id)}</code>
        </a>
      </th>
      <td className="state-cell">{text}</td>
      <td className="user" data-label="User" data-empty={userId === undefined}>
        {userId === undefined ? (
          <None />
        ) : (
          <code title={escapeHiddenCharacters(userId)}>{escapeHiddenCharacters(userId)}</code>
        )}
      </td>
      <td className="opened" data-label="Opened">
        <Time at={openedAt} />
      </td>
      <td className="ended" data-label="Ended" data-empty={endedAt === undefined}>
        {endedAt === undefined ? (
          <None />
        ) : (
          <>
            <Time at={endedAt} />
            {cause !== undefined && <span className="cause"> {escapeHiddenCharacters(cause)}</span>}
          </>
        )}
      </td>
      <td className="number" data-label="Messages">
        {formatCount(messages)}
      </td>
      <td className="number" data-label="Errors" data-some={errors > 0}>
        {formatCount(errors)}
      </td>
    </tr>
  );
});

export function describeState({ status, endedAt }: Connection): { state: string; text: string } {
  if (status === undefined) {
    return endedAt === undefined ? { state: "opening", text: "Opening" } : { state: "ended", text: "Ended" };
  }
  if (status !== 101) {
    return { state: "refused", text: `${status} refused` };
  }
  return endedAt === undefined ? { state: "live", text: "101 live" } : { state: "ended", text: "101 ended" };
}

export function Time({ at }: { at: number }) {
  return <time dateTime={formatIso(at)}>{formatTime(at)}</time>;
}

function None() {
  return <span className="none">–</span>;
}

function makeLinkId(id: string): string {
  return `connection-${id}`;
}
