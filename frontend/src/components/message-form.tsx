import { type FormEvent, type Ref, useId, useState } from "react";
import { QUEUE_LIMIT, QueueFull } from "../connection";

const KB = 1024;
/** API Gateway closes a connection that sends a larger frame. Browsers send a message as one frame. */
const MAX_FRAME_BYTES = 32 * KB;

interface MessageFormProps {
  field: Ref<HTMLInputElement>;
  onSend(text: string): void;
}

export function MessageForm({ field, onSend }: MessageFormProps) {
  const id = useId();
  const [text, setText] = useState("");
  const [error, setError] = useState<string>();

  function send(event: FormEvent) {
    event.preventDefault();
    if (text === "") {
      return;
    }
    try {
      onSend(text);
      setText("");
      setError(undefined);
    } catch (reason) {
      setError(describeSendError(reason));
    }
  }

  return (
    <form className="message-form" onSubmit={send}>
      <label htmlFor={id}>Message</label>
      <input
        ref={field}
        id={id}
        autoComplete="off"
        value={text}
        aria-describedby={`${id}-hint`}
        onChange={(event) => {
          setText(event.target.value);
          setError(undefined);
        }}
      />
      <button type="submit" className="primary">
        Send
      </button>
      <p className={error ? "error" : "warning"} id={`${id}-hint`} role="status">
        {error ?? describeSizeProblem(text)}
      </p>
    </form>
  );
}

function describeSendError(error: unknown): string {
  return error instanceof QueueFull
    ? `Not sent: ${QUEUE_LIMIT} messages are already waiting for a connection. Try again when you are connected.`
    : "Not sent: there is no session. Sign in first.";
}

function describeSizeProblem(text: string): string | undefined {
  const bytes = new TextEncoder().encode(text).length;
  return bytes > MAX_FRAME_BYTES
    ? `This message has ${Math.ceil(bytes / KB)} KB. Browsers send it as one frame, and API Gateway closes a connection that sends a frame over 32 KB.`
    : undefined;
}
