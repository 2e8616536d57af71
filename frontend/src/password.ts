/** The user pool's password rules, as the page shows them while a new password is typed. */

import type { PasswordPolicy } from "./config";

export interface PasswordRule {
  readonly text: string;
  readonly isMet: boolean;
}

/** The characters that Cognito counts as symbols. It counts a space too, except at the beginning and the end. */
const SYMBOL = /[\^$*.[\]{}()?\-"!@#%&/\\,><':;|_~`+=]|\S +\S/;

/** Return the pool's rules, each with whether the password meets it. */
export function checkPasswordRules(policy: PasswordPolicy, password: string): PasswordRule[] {
  const rules: [isRequired: boolean, text: string, isMet: boolean][] = [
    [true, `${policy.minimumLength} characters`, password.length >= policy.minimumLength],
    [policy.requireLowercase, "a lowercase letter", /[a-z]/.test(password)],
    [policy.requireUppercase, "an uppercase letter", /[A-Z]/.test(password)],
    [policy.requireNumbers, "a digit", /\d/.test(password)],
    [policy.requireSymbols, "a symbol", SYMBOL.test(password)],
  ];
  return rules.filter(([isRequired]) => isRequired).map(([, text, isMet]) => ({ text, isMet }));
}
