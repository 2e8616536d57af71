/** Cognito's errors in plain words, with the form field concerned. The text for a field fits on one line of a phone. */

export type FieldName = "email" | "password" | "code";

export interface Problem {
  /** undefined: the problem concerns no single field. */
  readonly field?: FieldName;
  readonly text: string;
}

const WRONG_PASSWORD: Problem = { field: "password", text: "Wrong email address or password." };
const NOT_AN_EMAIL_ADDRESS: Problem = { field: "email", text: "This is not an email address." };

/** For an error name that has several causes: the problem for each message. The first match counts. */
const CAUSES: Record<string, [message: RegExp, problem: Problem][]> = {
  NotAuthorizedException: [
    [/incorrect username or password/i, WRONG_PASSWORD],
    [/attempts exceeded/i, { text: "There were too many wrong passwords. Wait 15 minutes, then try again." }],
    [/user is disabled/i, { text: "This account is disabled. Ask an administrator to enable it." }],
    [
      /temporary password has expired/i,
      { text: "Your first password has expired. Ask an administrator for a new one." },
    ],
    [
      /cannot be reset/i,
      { text: "This account still has its first password. Sign in with it, or ask an administrator." },
    ],
    [/signup is not permitted/i, { text: "Only an administrator can make accounts here. Ask for one." }],
    [/status is confirmed/i, { text: "This account is confirmed already. Sign in." }],
    [/session/i, { text: "This took too long. Go back and sign in again." }],
  ],
  InvalidParameterException: [
    [/already confirmed/i, { text: "This account is confirmed already. Sign in." }],
    [
      /no registered\/verified/i,
      { text: "This account has no confirmed email address. Ask an administrator for a new password." },
    ],
    [/code/i, { field: "code", text: "A code has digits only." }],
    [/password/i, { field: "password", text: "No space at the beginning or end." }],
    [/username|email/i, NOT_AN_EMAIL_ADDRESS],
  ],
};

const PROBLEMS: Record<string, Problem> = {
  CodeDeliveryFailureException: {
    text: "Cognito could not send the mail. Check the email address, or try again later.",
  },
  CodeMismatchException: { field: "code", text: "This code is wrong." },
  ExpiredCodeException: { field: "code", text: "This code is not valid any more." },
  LimitExceededException: { text: "There were too many attempts. Wait 15 minutes, then try again." },
  ResourceNotFoundException: {
    text: "The user pool of this page does not exist any more. Reload the page, then sign in or sign up again.",
  },
  TooManyFailedAttemptsException: {
    text: "There were too many wrong codes. Wait 15 minutes, then request a new one.",
  },
  TooManyRequestsException: { text: "Cognito is busy. Wait a few seconds, then try again." },
  UsernameExistsException: { field: "email", text: "This address has an account. Sign in." },
  UserNotConfirmedException: { text: "This account is not confirmed yet. Sign in to confirm it." },
  UserNotFoundException: { field: "email", text: "This address has no account." },
};

/** Describe an error of a call to Cognito. `address` comes from `describeCognitoAddress()`. */
export function describeError(error: unknown, address: string): Problem {
  const { name, message } = error instanceof Error ? error : { name: "Error", message: String(error) };
  if (name === "NetworkError") {
    const isLocal = address.startsWith("http:");
    const place = isLocal ? `at ${address}` : `in ${address}`;
    const check = isLocal ? "Check that the local system is running" : "Check your network";
    return { text: `Cognito did not answer ${place}. ${check}, then try again.` };
  }
  if (name === "InvalidPasswordException") {
    return { field: "password", text: describePasswordProblem(message) };
  }
  const cause = CAUSES[name]?.find(([pattern]) => pattern.test(message));
  return cause?.[1] ?? PROBLEMS[name] ?? { text: `Cognito answered ${name}: ${message}` };
}

/**
 * Describe why Cognito refused a password. The field shows the rules, so a violated rule is not repeated.
 *
 * Cognito's message is, for example, "Password did not conform with policy: Password must have uppercase characters".
 */
function describePasswordProblem(message: string): string {
  return /long enough|length|uppercase|lowercase|numeric|symbol/.test(message)
    ? "The password does not meet the rules."
    : message;
}
