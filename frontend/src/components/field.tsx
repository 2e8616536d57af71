import { useId, useState } from "react";
import type { PasswordPolicy } from "../config";
import type { FieldName } from "../errors";
import { checkPasswordRules } from "../password";

export interface FieldProps {
  name: FieldName;
  label: string;
  type: "email" | "password" | "text";
  autoComplete: string;
  inputMode?: "email" | "numeric";
  defaultValue?: string | undefined;
  readOnly?: boolean;
  /** For a new password: the rules to show. */
  policy?: PasswordPolicy;
}

/** A labelled input with its password rules and its error. The space for the error is reserved, so that nothing moves. */
export function Field({ label, policy, error, ...input }: FieldProps & { error: string | undefined }) {
  const id = useId();
  const [value, setValue] = useState("");
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <input
        {...input}
        id={id}
        required
        autoCapitalize="none"
        spellCheck={false}
        aria-invalid={error !== undefined}
        aria-describedby={policy ? `${id}-error ${id}-rules` : `${id}-error`}
        onChange={(event) => setValue(event.target.value)}
      />
      {policy && <PasswordRules id={`${id}-rules`} policy={policy} password={value} />}
      <p className="error" id={`${id}-error`}>
        {error}
      </p>
    </div>
  );
}

function PasswordRules({ id, policy, password }: { id: string; policy: PasswordPolicy; password: string }) {
  return (
    <ul className="rules" id={id}>
      {checkPasswordRules(policy, password).map(({ text, isMet }) => (
        <li key={text} data-met={isMet}>
          <span aria-hidden="true">{isMet ? "✓" : "○"}</span> {text}
          <span className="visually-hidden">{isMet ? " (met)" : " (not met)"}</span>
        </li>
      ))}
    </ul>
  );
}
