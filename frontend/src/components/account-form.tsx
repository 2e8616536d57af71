import { type FormEvent, type ReactNode, useEffect, useRef, useState } from "react";
import { describeError, type FieldName, type Problem } from "../errors";
import { Field, type FieldProps } from "./field";

export type FormValues = Record<FieldName, string>;

interface AccountFormProps {
  title: string;
  intro?: ReactNode;
  /** What happened before, for example that the account was confirmed. */
  notice?: string | undefined;
  fields: FieldProps[];
  submitLabel: string;
  cognitoAddress: string;
  onSubmit(values: FormValues): Promise<void>;
  /** A second call to Cognito, as a link below the form. It returns the text to show when it has succeeded. */
  secondaryAction?: { label: string; run(): Promise<string> };
  children?: ReactNode;
}

/** A form for one call to Cognito, with the errors next to the fields concerned. */
export function AccountForm(props: AccountFormProps) {
  const { title, intro, notice, fields, submitLabel, cognitoAddress, secondaryAction } = props;
  const form = useRef<HTMLFormElement>(null);
  const isRunning = useRef(false);
  const [isBusy, setIsBusy] = useState(false);
  const [success, setSuccess] = useState<string>();
  const [problems, setProblems] = useState<Problem[]>([]);

  useEffect(() => focus(form.current, "input:not([readonly])"), []);

  useEffect(() => {
    if (problems.length > 0) {
      focus(form.current, "[aria-invalid=true]");
    }
  }, [problems]);

  /** Run one call at a time: a second click does nothing. */
  async function run(action: () => Promise<string | undefined>) {
    if (isRunning.current) {
      return;
    }
    isRunning.current = true;
    setIsBusy(true);
    setProblems([]);
    try {
      setSuccess(await action());
    } catch (error) {
      setSuccess(undefined);
      setProblems([describeError(error, cognitoAddress)]);
    } finally {
      isRunning.current = false;
      setIsBusy(false);
    }
  }

  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const invalid = findInvalidFields(event.currentTarget, fields);
    if (invalid.length > 0) {
      setSuccess(undefined);
      setProblems(invalid);
      return;
    }
    const values = Object.fromEntries(new FormData(event.currentTarget)) as FormValues;
    void run(async () => {
      await props.onSubmit(values);
      return undefined;
    });
  }

  const findError = (name: FieldName) => problems.find(({ field }) => field === name)?.text;
  const otherError = problems.find(({ field }) => !fields.some(({ name }) => name === field))?.text;
  return (
    <form ref={form} className="card" noValidate aria-busy={isBusy} onSubmit={submit}>
      <h2>{title}</h2>
      {notice && <p className="notice">{notice}</p>}
      {intro && <p className="intro">{intro}</p>}
      {fields.map((field) => (
        <Field key={field.name} {...field} error={findError(field.name)} />
      ))}
      <button type="submit" className="primary" aria-disabled={isBusy}>
        {submitLabel}
      </button>
      <div className="links">
        {secondaryAction && (
          <button type="button" className="link" aria-disabled={isBusy} onClick={() => void run(secondaryAction.run)}>
            {secondaryAction.label}
          </button>
        )}
        {props.children}
      </div>
      <div className="result">
        <p role="alert" className="error">
          {otherError}
        </p>
        <p role="status">{success}</p>
      </div>
    </form>
  );
}

function findInvalidFields(form: HTMLFormElement, fields: FieldProps[]): Problem[] {
  return fields.flatMap(({ name, label }) => {
    const { validity, value } = form.elements.namedItem(name) as HTMLInputElement;
    if (validity.valueMissing || (name === "code" && !extractDigits(value))) {
      return [{ field: name, text: `Enter your ${label.toLowerCase()}.` }];
    }
    return validity.valid ? [] : [{ field: name, text: "This is not an email address." }];
  });
}

/** Return the digits of a code, which is often pasted with spaces or a hyphen. */
export function extractDigits(code: string): string {
  return code.normalize("NFKC").replace(/\D/g, "");
}

function focus(form: HTMLFormElement | null, selector: string): void {
  form?.querySelector<HTMLInputElement>(selector)?.focus();
}
