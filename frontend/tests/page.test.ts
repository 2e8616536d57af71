/** The page's components as HTML: which texts they show for which settings and messages. */

import { createElement } from "react";
import { renderToStaticMarkup } from "react-dom/server";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Account } from "../src/components/account";
import { MessageList } from "../src/components/message-list";
import { Page } from "../src/components/page";
import { parseConfig } from "../src/config";
import type { SentMessage } from "../src/connection";
import type { Frame } from "../src/frames";
import type { Entry } from "../src/messages";
import { AWS } from "./aws-config";

vi.mock("aws-amplify", () => ({}));
vi.mock("aws-amplify/auth", () => ({}));

const NO_CONTENT = { children: null };
const ORIGIN = "https://app.example.com";

beforeEach(() => vi.stubGlobal("location", { origin: ORIGIN }));
afterEach(() => vi.unstubAllGlobals());

describe("the sign-in form", () => {
  it.each([true, false])("offers sign-up only if the user pool allows it: %j", (selfSignUp) => {
    const config = parseConfig({ ...AWS, selfSignUp });

    const html = renderToStaticMarkup(createElement(Account, { config, onSignedIn: () => undefined }));

    expect(html.includes("Sign up")).toBe(selfSignUp);
  });
});

describe("the warning about the page's origin", () => {
  it.each([
    [["https://other.example.com"], true],
    [["https://other.example.com", ORIGIN], false],
    [[], false],
  ])("with the allowed origins %j is shown: %j", (allowedOrigins, isShown) => {
    const config = parseConfig({ ...AWS, allowedOrigins });

    const html = renderToStaticMarkup(createElement(Page, { config, ...NO_CONTENT }));

    expect(html.includes("Connections from this page will be refused")).toBe(isShown);
  });
});

describe("the message list", () => {
  function renderEntry(entry: Entry): string {
    return renderToStaticMarkup(createElement(MessageList, { entries: [entry] }));
  }

  it.each<[SentMessage["state"], string]>([
    ["queued", "queued"],
    ["sent", "sent"],
    ["unconfirmed", "not confirmed: no echo came, but it may have arrived"],
    ["refused", "refused: larger than the server accepts"],
    ["discarded", "not sent: the connection was closed"],
  ])("marks a message that is %s as “%s”", (state, note) => {
    const message = { id: 1, text: "hello", state, sentAt: 0, roundTripMs: undefined };

    expect(renderEntry({ key: 1, at: 0, kind: "sent", message })).toMatch(
      new RegExp(`data-kind="${state}".*>You<.*>hello<.*>${note}<`),
    );
  });

  it.each<[Frame, string, string]>([
    [{ kind: "push", text: "news" }, "push", "push"],
    [{ kind: "echo", text: "news" }, "push", "unexpected echo"],
    [{ kind: "error", code: "message_too_large", text: "news" }, "error", "error message_too_large"],
    [
      { kind: "error", code: "api_gateway", text: "news", requestId: "r=" },
      "error",
      "error of API Gateway, request r=",
    ],
  ])("marks the frame %j as %s: “%s”", (frame, kind, note) => {
    expect(renderEntry({ key: 1, at: 0, kind: "received", frame })).toMatch(
      new RegExp(`data-kind="${kind}".*>Server<.*>news<.*>${note}<`),
    );
  });
});
