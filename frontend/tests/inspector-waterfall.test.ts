import { describe, expect, it } from "vitest";
import { layOut } from "../src/inspector/waterfall";

const FIRST = { id: "a", trace_id: "t", name: "websocket", origin: "AWS::Lambda", start_time: 100, end_time: 100.1 };
const FUNCTION = {
  id: "b",
  trace_id: "t",
  parent_id: "a",
  name: "websocket",
  start_time: 100.02,
  end_time: 100.09,
  subsegments: [
    { id: "d", name: "Invocation", start_time: 100.05, end_time: 100.09 },
    { id: "c", name: "Initialization", start_time: 100.02, end_time: 100.05 },
  ],
};
const CALL = {
  id: "e",
  trace_id: "t",
  parent_id: "b",
  type: "subsegment",
  name: "DynamoDB",
  start_time: 100.06,
  end_time: 100.08,
  fault: true,
  aws: { operation: "PutItem" },
  http: { response: { status: 400 } },
  cause: { exceptions: [{ type: "AccessDeniedException", message: "no" }] },
  annotations: { reason: "ok" },
};

function layOutBars(documents: readonly unknown[]) {
  return layOut(documents).spans.map(({ id, bar: { left, width } }) => [id, Math.round(left), Math.round(width)]);
}

describe("a waterfall", () => {
  it("has each parent before its children, which are in order of time", () => {
    const { spans, duration } = layOut([CALL, FUNCTION, FIRST]);

    expect(spans.map(({ id, depth }) => `${depth} ${id}`)).toEqual(["0 a", "1 b", "2 c", "2 d", "2 e"]);
    expect(duration).toBeCloseTo(0.1);
  });

  it("has bars in percent of the trace's duration", () => {
    expect(layOutBars([FIRST, FUNCTION, CALL])).toEqual([
      ["a", 0, 100],
      ["b", 20, 70],
      ["c", 20, 30],
      ["d", 50, 40],
      ["e", 60, 20],
    ]);
  });

  it("has starts relative to the start of the trace", () => {
    const call = layOut([FIRST, FUNCTION, CALL]).spans.at(-1);

    expect(call?.start).toBeCloseTo(0.06);
    expect(call?.duration).toBeCloseTo(0.02);
  });

  it("says what failed, and how", () => {
    expect(layOut([CALL]).spans[0]).toMatchObject({
      hasFailed: true,
      note: "PutItem, HTTP 400, AccessDeniedException: no, reason: ok",
    });
  });

  it("keeps a short bar visible and within the trace", () => {
    const short = { ...FIRST, id: "s", start_time: 100.1, end_time: 100.1 };

    expect(layOut([FIRST, short]).spans[1]?.bar).toEqual({ left: 99.5, width: 0.5 });
  });

  it("fills the width with a trace that takes no time", () => {
    expect(layOutBars([{ ...FIRST, end_time: 100 }])).toEqual([["a", 0, 100]]);
  });

  it("draws a segment in progress to the end, and replaces it when it is complete", () => {
    const inProgress = { ...CALL, end_time: undefined, in_progress: true };

    expect(layOut([FIRST, inProgress]).spans[1]).toMatchObject({
      duration: undefined,
      bar: { width: expect.closeTo(40) },
    });
    expect(layOut([FIRST, inProgress, CALL]).spans[1]?.duration).toBeCloseTo(0.02);
    expect(layOut([FIRST, CALL, inProgress]).spans[1]?.duration).toBeCloseTo(0.02);
  });

  it("treats an end before its start as no duration", () => {
    expect(layOut([{ ...FIRST, end_time: 99 }])).toMatchObject({ duration: 0, spans: [{ duration: 0 }] });
  });

  it("shows a segment whose parent is unknown, and segments that are each other's parents", () => {
    expect(layOutBars([CALL])).toEqual([["e", 0, 100]]);
    expect(
      layOut([{ ...FIRST, parent_id: "b" }, FUNCTION, { ...CALL, parent_id: "e" }])
        .spans.map(({ id }) => id)
        .sort(),
    ).toEqual(["a", "b", "c", "d", "e"]);
  });

  it("ignores values that are not segments", () => {
    const documents = [
      null,
      1,
      "text",
      {},
      { id: "x" },
      { id: "y", start_time: "100" },
      { ...FIRST, subsegments: "none" },
    ];

    expect(layOut(documents).spans.map(({ id }) => id)).toEqual(["a"]);
    expect(layOut([])).toEqual({ spans: [], duration: 0 });
  });
});
