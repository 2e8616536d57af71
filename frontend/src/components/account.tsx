import {
  confirmResetPassword,
  confirmSignIn,
  confirmSignUp,
  resendSignUpCode,
  resetPassword,
  type SignInOutput,
  signUp,
} from "aws-amplify/auth";
import { type MouseEvent, type ReactNode, useState } from "react";
import { type Config, describeCognitoAddress, isLocal } from "../config";
import { fetchCurrentUser, startSession, type User } from "../session";
import { AccountForm, extractDigits } from "./account-form";
import type { FieldProps } from "./field";

/** The form to show. A password stays in memory until the account is confirmed, to sign in without asking again. */
type Step =
  | { name: "signIn" | "signUp" | "forgottenPassword"; email: string; notice?: string | undefined }
  | { name: "confirmSignUp"; email: string; password: string }
  | { name: "newPassword" | "resetPassword"; email: string }
  | { name: "unsupported"; email: string; needs: string };

interface AccountProps {
  config: Config;
  email?: string | undefined;
  notice?: string | undefined;
  onSignedIn(user: User | undefined): void;
}

const CODE: FieldProps = {
  name: "code",
  label: "Confirmation code",
  type: "text",
  inputMode: "numeric",
  autoComplete: "one-time-code",
};

/** Steps that this page does not offer, in plain words. */
const UNSUPPORTED_STEPS: Record<string, string> = {
  CONFIRM_SIGN_IN_WITH_TOTP_CODE: "a code from an authenticator app",
  CONFIRM_SIGN_IN_WITH_SMS_CODE: "a code from a text message",
  CONFIRM_SIGN_IN_WITH_EMAIL_CODE: "a code from a mail",
  CONTINUE_SIGN_IN_WITH_MFA_SELECTION: "a second factor",
  CONTINUE_SIGN_IN_WITH_TOTP_SETUP: "an authenticator app to be set up",
};

/** The forms to sign in, and for the steps that may be needed before: sign up, confirm, set a new password. */
export function Account({ config, email = "", notice, onSignedIn }: AccountProps) {
  const [step, setStep] = useState<Step>({ name: "signIn", email, notice });
  const address = describeCognitoAddress(config);
  const makeNewPasswordField = (label: string): FieldProps => ({
    name: "password",
    label,
    type: "password",
    autoComplete: "new-password",
    policy: config.passwordPolicy,
  });

  async function continueSignIn(next: SignInOutput["nextStep"], email: string, password: string) {
    switch (next.signInStep) {
      case "DONE":
        onSignedIn(await fetchCurrentUser());
        break;
      case "CONFIRM_SIGN_UP":
        setStep({ name: "confirmSignUp", email, password });
        break;
      case "RESET_PASSWORD":
        setStep({ name: "resetPassword", email });
        break;
      case "CONFIRM_SIGN_IN_WITH_NEW_PASSWORD_REQUIRED":
        setStep({ name: "newPassword", email });
        break;
      default:
        setStep({ name: "unsupported", email, needs: UNSUPPORTED_STEPS[next.signInStep] ?? next.signInStep });
    }
  }

  /** Sign in with the password that was just typed. If that fails, show the sign-in form with `success` above it. */
  async function signInWithTypedPassword(success: string, email: string, password: string) {
    try {
      await continueSignIn(await startSession(email, password), email, password);
    } catch {
      setStep({ name: "signIn", email, notice: `${success} Sign in.` });
    }
  }

  const renderStepLink = (name: "signIn" | "signUp" | "forgottenPassword", label: string) => (
    <button
      type="button"
      className="link"
      onClick={(event) => setStep({ name, email: readTypedEmail(event, step.email) })}
    >
      {label}
    </button>
  );

  switch (step.name) {
    case "signIn":
      return (
        <AccountForm
          key={step.name}
          title="Sign in"
          notice={step.notice}
          fields={[
            makeEmailField(step.email),
            { name: "password", label: "Password", type: "password", autoComplete: "current-password" },
          ]}
          submitLabel="Sign in"
          cognitoAddress={address}
          onSubmit={async ({ email, password }) => continueSignIn(await startSession(email, password), email, password)}
        >
          {renderStepLink("forgottenPassword", "Forgotten password?")}
          {config.selfSignUp && <span>No account yet? {renderStepLink("signUp", "Sign up")}</span>}
        </AccountForm>
      );
    case "signUp":
      return (
        <AccountForm
          key={step.name}
          title="Sign up"
          fields={[makeEmailField(step.email), makeNewPasswordField("Password")]}
          submitLabel="Sign up"
          cognitoAddress={address}
          onSubmit={async ({ email, password }) => {
            const { isSignUpComplete } = await signUp({
              username: email,
              password,
              options: { userAttributes: { email } },
            });
            if (isSignUpComplete) {
              await signInWithTypedPassword("Your account is ready.", email, password);
            } else {
              setStep({ name: "confirmSignUp", email, password });
            }
          }}
        >
          <span>You have an account? {renderStepLink("signIn", "Sign in")}</span>
        </AccountForm>
      );
    case "confirmSignUp":
      return (
        <AccountForm
          key={step.name}
          title="Confirm your email address"
          intro={<CodeIntro config={config} email={step.email} />}
          fields={[CODE]}
          submitLabel="Confirm"
          cognitoAddress={address}
          onSubmit={async ({ code }) => {
            await confirmSignUp({ username: step.email, confirmationCode: extractDigits(code) });
            await signInWithTypedPassword("Your account is confirmed.", step.email, step.password);
          }}
          secondaryAction={{
            label: "Send a new code",
            run: async () => {
              await resendSignUpCode({ username: step.email });
              return `A new code is on its way to ${step.email}.`;
            },
          }}
        >
          {renderStepLink("signIn", "Back to sign in")}
        </AccountForm>
      );
    case "newPassword":
      return (
        <AccountForm
          key={step.name}
          title="Choose a password"
          intro="An administrator made this account. Replace its first password with your own."
          fields={[{ ...makeEmailField(step.email), readOnly: true }, makeNewPasswordField("New password")]}
          submitLabel="Set password"
          cognitoAddress={address}
          onSubmit={async ({ password }) =>
            continueSignIn((await confirmSignIn({ challengeResponse: password })).nextStep, step.email, password)
          }
        >
          {renderStepLink("signIn", "Back to sign in")}
        </AccountForm>
      );
    case "forgottenPassword":
      return (
        <AccountForm
          key={step.name}
          title="Forgotten password"
          intro="Cognito sends you a code. With the code you can choose a new password."
          fields={[makeEmailField(step.email)]}
          submitLabel="Send code"
          cognitoAddress={address}
          onSubmit={async ({ email }) => {
            await resetPassword({ username: email });
            setStep({ name: "resetPassword", email });
          }}
        >
          {renderStepLink("signIn", "Back to sign in")}
        </AccountForm>
      );
    case "resetPassword":
      return (
        <AccountForm
          key={step.name}
          title="Choose a new password"
          intro={<CodeIntro config={config} email={step.email} isAccountUncertain />}
          fields={[{ ...makeEmailField(step.email), readOnly: true }, CODE, makeNewPasswordField("New password")]}
          submitLabel="Set password"
          cognitoAddress={address}
          onSubmit={async ({ code, password }) => {
            await confirmResetPassword({
              username: step.email,
              confirmationCode: extractDigits(code),
              newPassword: password,
            });
            await signInWithTypedPassword("Your password is changed.", step.email, password);
          }}
          secondaryAction={{
            label: "Send a new code",
            run: async () => {
              await resetPassword({ username: step.email });
              return `A new code is on its way to ${step.email}.`;
            },
          }}
        >
          {renderStepLink("signIn", "Back to sign in")}
        </AccountForm>
      );
    case "unsupported":
      return (
        <div className="card">
          <h2>Sign in</h2>
          <p role="alert" className="error">
            This account needs {step.needs}, which this page does not offer.
          </p>
          <div className="links">{renderStepLink("signIn", "Back to sign in")}</div>
        </div>
      );
  }
}

interface CodeIntroProps {
  config: Config;
  email: string;
  /** True if the address may have no account: Cognito does not tell. */
  isAccountUncertain?: boolean;
}

function CodeIntro({ config, email, isAccountUncertain = false }: CodeIntroProps): ReactNode {
  return (
    <>
      {isAccountUncertain && "If this address has an account, a code is on its way. "}
      Enter the code from the mail to <strong>{email}</strong>.
      {isLocal(config) && (
        <>
          {" "}
          The terminal where <code>make up</code> runs shows the mail.
        </>
      )}
    </>
  );
}

function makeEmailField(email = ""): FieldProps {
  return {
    name: "email",
    label: "Email",
    type: "email",
    inputMode: "email",
    autoComplete: "username",
    defaultValue: email,
  };
}

/** Return the email address that is typed into the form, or `fallback` if the form has no such field. */
function readTypedEmail({ currentTarget }: MouseEvent<HTMLButtonElement>, fallback = ""): string {
  const form = currentTarget.form;
  return String((form && new FormData(form).get("email")) ?? fallback);
}
