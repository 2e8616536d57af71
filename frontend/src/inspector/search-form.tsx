import { useEffect, useId, useRef, useState } from "react";
import type { Journal } from "./journal";
import type { Route } from "./route";
import { navigate, replaceRoute } from "./use-route";

const TYPING_PAUSE_MS = 250;

interface SearchFormProps {
  journal: Journal;
  route: Route;
  /** Called with the connection that the search has found. */
  onOpen(id: string): void;
}

/** Find connections by any of their ids. Enter opens the timeline if there is one match. */
export function SearchForm({ journal, route, onOpen }: SearchFormProps) {
  const id = useId();
  const field = useRef<HTMLInputElement>(null);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  const shown = route.page === "list" ? route.search : "";
  const [text, setText] = useState(shown);

  useEffect(() => setText(shown), [shown]); // the back button or a link may change the search
  useEffect(() => focusOnSlash(field.current as HTMLInputElement), []);
  useEffect(() => () => clearTimeout(timer.current), []);

  function show(search: string) {
    const target: Route = { page: "list", search };
    if (route.page === "list") {
      replaceRoute(target);
    } else {
      navigate(target); // so that the back button returns to the connection
    }
  }

  function handleTyping(value: string) {
    setText(value);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => show(value.trim()), TYPING_PAUSE_MS);
  }

  async function submit() {
    clearTimeout(timer.current);
    const search = text.trim();
    if (search === "") {
      show("");
      return;
    }
    const found = await journal.find(search);
    if (field.current?.value.trim() !== search) {
      return; // the reader went on typing
    }
    if (found === undefined) {
      show(search);
      return;
    }
    if (route.page === "list") {
      show(search); // so that the back button returns to the results
    }
    setText("");
    onOpen(found);
  }

  return (
    <search>
      <form
        className="search-form"
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
      >
        <label htmlFor={id}>Search</label>
        <input
          ref={field}
          id={id}
          type="search"
          value={text}
          autoComplete="off"
          autoCapitalize="none"
          spellCheck={false}
          enterKeyHint="search"
          aria-keyshortcuts="/"
          aria-describedby={`${id}-hint`}
          onChange={(event) => handleTyping(event.target.value)}
        />
        <p className="hint" id={`${id}-hint`}>
          Connection, request, trace or user id. <span className="keys">Press / to search, Enter to open.</span>
        </p>
      </form>
    </search>
  );
}

function focusOnSlash(field: HTMLInputElement): () => void {
  const listen = (event: KeyboardEvent) => {
    const isTyping = event.target instanceof HTMLElement && event.target.matches("input, textarea, select");
    if (event.key === "/" && !event.ctrlKey && !event.metaKey && !event.altKey && !isTyping) {
      event.preventDefault();
      field.focus();
      field.select();
    }
  };
  document.addEventListener("keydown", listen);
  return () => document.removeEventListener("keydown", listen);
}
