import { useEffect, useState } from "react";

const SHOWN_MS = 2000;

/** A button that copies an id. */
export function CopyButton({ name, text }: { name: string; text: string }) {
  const [result, setResult] = useState<string>();

  useEffect(() => {
    if (result === undefined) {
      return;
    }
    const timer = setTimeout(() => setResult(undefined), SHOWN_MS);
    return () => clearTimeout(timer);
  }, [result]);

  async function copy() {
    try {
      await navigator.clipboard.writeText(text);
      setResult("Copied");
    } catch {
      setResult("Not copied"); // the browser does not allow it
    }
  }

  return (
    <>
      <button type="button" className="link copy" onClick={() => void copy()}>
        {result ?? "Copy"}
        <span className="visually-hidden"> {name.toLowerCase()}</span>
      </button>
      <span role="status" className="visually-hidden">
        {result}
      </span>
    </>
  );
}
