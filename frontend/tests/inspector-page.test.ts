/** The inspector's components as HTML: untrusted text must not become markup. */

import { createElement } from "react";
import { renderToStaticMarkup } from "react-dom/server";
import { describe, expect, it } from "vitest";
import { parseConnections } from "../src/inspector/api";
import { ConnectionPage } from "../src/inspector/connection-page";
import { ListPage } from "../src/inspector/list-page";
import { layOut } from "../src/inspector/waterfall";
import { WaterfallTable } from "../src/inspector/waterfall-table";
import {
  acceptedHandshake,
  answeredMessage,
  CONNECTION,
  ending,
  entry,
  HOSTILE,
  refusedHandshake,
  segment,
} from "./inspector-data";

function renderTimeline(entries: Parameters<typeof entry>[3][] | unknown, id = CONNECTION) {
  return renderToStaticMarkup(
    createElement(ConnectionPage, {
      id,
      timeline: { id, entries: entries as never, problem: undefined },
      summary: undefined,
      search: "",
    }),
  );
}

function expectNoMarkup(html: string) {
  expect(html).not.toContain("<script");
  expect(html).not.toContain("<img");
  expect(html).toContain("&lt;script&gt;");
}

describe("hostile text", () => {
  it("is text in a timeline", () => {
    const facts = {
      message: HOSTILE,
      routeKey: HOSTILE,
      body: HOSTILE,
      function: HOSTILE,
      purpose: HOSTILE,
      error: HOSTILE,
    };
    const entries = [
      "handshake",
      "invocation",
      "decision",
      "message",
      "frame",
      "management",
      "call",
      "log",
      "trace",
      HOSTILE,
    ].map((kind, at) =>
      entry(at, kind, [HOSTILE], {
        ...facts,
        ...{
          method: HOSTILE,
          path: HOSTILE,
          from: HOSTILE,
          caller: HOSTILE,
          service: HOSTILE,
          status: 400,
          name: HOSTILE,
        },
        record: { level: HOSTILE, message: HOSTILE, reason: HOSTILE, endedBy: HOSTILE },
      }),
    );

    expectNoMarkup(renderTimeline([...entries, ending(20, HOSTILE, { reason: HOSTILE, code: HOSTILE })], HOSTILE));
  });

  it("is text in the list", () => {
    const connections = parseConnections([
      { id: HOSTILE, userId: HOSTILE, cause: HOSTILE, status: 101, openedAt: 1, endedAt: 2 },
    ]);
    const list = { connections, total: 1, search: HOSTILE, problem: undefined };

    expectNoMarkup(renderToStaticMarkup(createElement(ListPage, { list, previousId: undefined })));
    expectNoMarkup(
      renderToStaticMarkup(
        createElement(ListPage, { list: { ...list, connections: [], total: 0 }, previousId: undefined }),
      ),
    );
  });

  it("is text in a waterfall, and its id cannot lead elsewhere", () => {
    const document = { ...segment(HOSTILE, 1), name: HOSTILE, origin: HOSTILE, annotations: { [HOSTILE]: HOSTILE } };
    const html = renderToStaticMarkup(
      createElement(WaterfallTable, { waterfall: layOut([document]), traceId: 'javascript:"><script>' }),
    );

    expectNoMarkup(html);
    expect(html).toContain('href="api/traces/javascript%3A');
  });
});

describe("the timeline of a connection", () => {
  it("begins with the reason of its end", () => {
    const html = renderTimeline(refusedHandshake());

    expect(html).toMatch(
      /How it ended.*Handshake refused: 403.*Reason:.*the token has expired.*expired_token\.exp.*Timeline/,
    );
  });

  it("hides the details at first", () => {
    const html = renderTimeline([...acceptedHandshake(), ...answeredMessage(3, 101)]);

    expect(html).toContain("<summary>");
    expect(html).not.toContain("<pre");
    expect(html).toContain("Trace: 1 segment in 10 ms");
  });

  it("shows the latest 200 steps, and how many it hides", () => {
    const messages = Array.from({ length: 300 }, (_, n) => entry(101 + n, "message", [`r${n}`], { body: `text ${n}` }));
    const html = renderTimeline([...acceptedHandshake(), ...messages]);

    expect(html).toContain("Handshake accepted: 101");
    expect(html).toContain("(101 are hidden)");
    expect(html).not.toContain("“text 100”");
    expect(html).toContain("“text 101”");
  });

  it("says that a connection is unknown", () => {
    const html = renderToStaticMarkup(
      createElement(ConnectionPage, {
        id: CONNECTION,
        timeline: { id: CONNECTION, entries: undefined, problem: "unknown" },
        summary: undefined,
        search: "u",
      }),
    );

    expect(html).toContain("The journal has no connection with this id.");
    expect(html).toContain("Back to the search");
  });
});
