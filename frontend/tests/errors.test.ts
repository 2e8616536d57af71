import { describe, expect, it } from "vitest";
import { describeError } from "../src/errors";

const ADDRESS = "region eu-west-1";

function describeProblem(name: string, message = "") {
  return describeError(Object.assign(new Error(message), { name }), ADDRESS);
}

// The messages are Cognito's own.
describe("an error of Cognito", () => {
  it.each([
    ["NotAuthorizedException", "Incorrect username or password.", "password", /wrong/i],
    ["UserNotFoundException", "User does not exist.", "email", /no account/],
    ["UsernameExistsException", "User already exists", "email", /has an account/],
    ["InvalidPasswordException", "Password did not conform with policy: Password not long enough", "password", /rules/],
    [
      "InvalidPasswordException",
      "Password did not conform with policy: Password must have symbol characters",
      "password",
      /rules/,
    ],
    [
      "InvalidPasswordException",
      "Provided password cannot be used for security reasons.",
      "password",
      /security reasons/,
    ],
    ["CodeMismatchException", "Invalid verification code provided, please try again.", "code", /wrong/],
    ["ExpiredCodeException", "Invalid code provided, please request a code again.", "code", /not valid any more/],
    ["InvalidParameterException", "Username should be an email.", "email", /not an email/],
    [
      "InvalidParameterException",
      "1 validation error detected: Value at 'password' failed to satisfy constraint: Member must satisfy regular expression pattern: ^[\\S]+.*[\\S]+$",
      "password",
      /space/,
    ],
    [
      "InvalidParameterException",
      "1 validation error detected: Value at 'confirmationCode' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\S]+",
      "code",
      /digits/,
    ],
  ])("%s (%s) is shown at the field %s", (name, message, field, text) => {
    expect(describeProblem(name, message)).toEqual({ field, text: expect.stringMatching(text) });
  });

  it.each([
    ["NotAuthorizedException", "Password attempts exceeded", /Wait 15 minutes/],
    ["NotAuthorizedException", "User is disabled.", /disabled/],
    [
      "NotAuthorizedException",
      "Temporary password has expired and must be reset by an administrator.",
      /first password has expired/,
    ],
    ["NotAuthorizedException", "User password cannot be reset in the current state.", /first password/],
    ["NotAuthorizedException", "SignUp is not permitted for this user pool", /administrator/],
    ["NotAuthorizedException", "User cannot be confirmed. Current status is CONFIRMED", /confirmed already/],
    ["NotAuthorizedException", "Invalid session for the user, session is expired.", /sign in again/],
    ["InvalidParameterException", "User is already confirmed.", /confirmed already/],
    [
      "InvalidParameterException",
      "Cannot reset password for the user as there is no registered/verified email or phone_number",
      /no confirmed email/,
    ],
    ["LimitExceededException", "Attempt limit exceeded, please try after some time.", /Wait 15 minutes/],
    ["TooManyRequestsException", "Too many requests", /busy/],
    ["TooManyFailedAttemptsException", "", /too many wrong codes/],
    ["CodeDeliveryFailureException", "", /could not send the mail/],
    ["UserNotConfirmedException", "User is not confirmed.", /not confirmed yet/],
  ])("%s (%s) is shown below the form", (name, message, text) => {
    expect(describeProblem(name, message)).toEqual({ text: expect.stringMatching(text) });
  });

  it("that the page does not know is shown unchanged", () => {
    expect(describeProblem("InternalErrorException", "Oops")).toEqual({
      text: "Cognito answered InternalErrorException: Oops",
    });
    expect(describeProblem("NotAuthorizedException", "New in 2027")).toEqual({
      text: "Cognito answered NotAuthorizedException: New in 2027",
    });
  });
});

it("an unreachable Cognito is named by its address", () => {
  expect(describeProblem("NetworkError").text).toContain(ADDRESS);
  const local = describeError(Object.assign(new Error(), { name: "NetworkError" }), "http://127.0.0.1:4511/");
  expect(local.text).toContain("local system");
});
