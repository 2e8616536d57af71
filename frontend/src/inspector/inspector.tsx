import { useEffect, useRef, useState, useSyncExternalStore } from "react";
import { ConnectionPage } from "./connection-page";
import { formatTime } from "./format";
import type { Journal, JournalState } from "./journal";
import { ListPage } from "./list-page";
import { SearchForm } from "./search-form";
import { navigate, useRoute } from "./use-route";

/** Connections of the local run, live and past, and what happened to each. */
export function Inspector({ journal }: { journal: Journal }) {
  const state = useSyncExternalStore(journal.subscribe, journal.getState);
  const route = useRoute();
  const search = route.page === "list" ? route.search : undefined;
  const id = route.page === "connection" ? route.id : undefined;
  const [searchCount, setSearchCount] = useState(0);
  const lastSearch = useRef("");
  const lastId = useRef<string>(undefined);

  useEffect(() => watchVisibility(journal), [journal]);
  useEffect(() => {
    if (search !== undefined) {
      lastSearch.current = search;
      journal.setSearch(search);
    }
  }, [journal, search]);
  useEffect(() => {
    if (id === undefined) {
      journal.closeTimeline();
    } else {
      lastId.current = id;
      journal.openTimeline(id);
    }
    document.title = id === undefined ? "Inspector" : `${id} | Inspector`;
  }, [journal, id]);

  const { timeline, list } = state;
  return (
    <div className="inspector">
      <header className="top">
        <h1>Inspector</h1>
        <SearchForm
          journal={journal}
          route={route}
          onOpen={(found) => {
            navigate({ page: "connection", id: found });
            setSearchCount((count) => count + 1);
          }}
        />
        <Stream state={state} journal={journal} />
        <Notice state={state} />
      </header>
      <main>
        {id === undefined ? (
          <ListPage list={list} previousId={lastId.current} />
        ) : (
          <ConnectionPage
            key={`${searchCount} ${id}`} // each search mounts the page again, which moves the focus to its heading
            id={id}
            timeline={timeline?.id === id ? timeline : undefined}
            summary={list.connections.find((connection) => connection.id === id)}
            search={lastSearch.current}
          />
        )}
      </main>
    </div>
  );
}

/** Keep the stream only while somebody can see the page: browsers allow six connections to one server. */
function watchVisibility(journal: Journal): () => void {
  const update = () => {
    if (journal.getState().stream === "paused") {
      return;
    }
    if (document.visibilityState === "visible") {
      journal.start();
    } else {
      journal.stop();
    }
  };
  update();
  document.addEventListener("visibilitychange", update);
  return () => {
    document.removeEventListener("visibilitychange", update);
    journal.stop();
  };
}

const STREAM_TEXT: Record<JournalState["stream"], string> = {
  connecting: "Connecting",
  live: "Live",
  lost: "Ended",
  paused: "Paused",
};

function Stream({ state: { stream }, journal }: { state: JournalState; journal: Journal }) {
  const isPaused = stream === "paused";
  return (
    <div className="stream" data-stream={stream}>
      <p role="status" aria-label="Updates">
        {STREAM_TEXT[stream]}
      </p>
      <button
        type="button"
        className="secondary"
        aria-disabled={stream === "lost" || stream === "connecting"}
        onClick={() => {
          if (isPaused) {
            journal.resume();
          } else if (stream === "live") {
            journal.pause();
          }
        }}
      >
        {isPaused ? "Continue" : "Pause"}
      </button>
    </div>
  );
}

/** The reason why the page gets no updates any more. */
function Notice({ state: { stream, list, lastLiveAt } }: { state: JournalState }) {
  return (
    <div role="status" className="notice-area">
      {list.problem === "no journal" ? (
        <p className="banner">
          There is no journal at this address. Start <code>make up</code>, and open the address that it prints as
          “Inspector”.
        </p>
      ) : (
        stream === "lost" && (
          <p className="banner">
            The local run has ended
            {lastLiveAt === undefined ? ". " : `. This page shows the state at ${formatTime(lastLiveAt)}. `}
            It continues by itself when you start <code>make up</code> again.
          </p>
        )
      )}
    </div>
  );
}
