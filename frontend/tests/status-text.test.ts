import { expect, it } from "vitest";
import { parseConfig } from "../src/config";
import type { Reason } from "../src/connection";
import { describeReason } from "../src/status-text";
import { AWS } from "./aws-config";

const CONFIG = parseConfig(AWS);
const UNREACHABLE = Object.assign(new Error(), { name: "NetworkError" });

it.each<[Reason, RegExp]>([
  [{ kind: "not_opened" }, /refused the connection, or could not be reached/],
  [{ kind: "lost", code: 1006, text: "" }, /^The connection was lost\.$/],
  [{ kind: "lost", code: 1001, text: "Going away" }, /code 1001 \(Going away\)\.$/],
  [{ kind: "lost", code: 1009, text: "" }, /a message was too large\.$/],
  [{ kind: "lost", code: 1011, text: "" }, /code 1011\.$/],
  [{ kind: "no_answer" }, /keep-alive/],
  [{ kind: "token_expired" }, /ID token of this connection expired/],
  [{ kind: "token_unavailable", error: UNREACHABLE }, /did not answer in region eu-west-1/],
  [{ kind: "session_ended" }, /session has ended/],
])("%j is described in plain words", (reason, text) => {
  expect(describeReason(reason, CONFIG)).toMatch(text);
});
