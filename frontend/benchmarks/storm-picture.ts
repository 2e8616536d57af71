/** The simulation as a picture: a row for each policy, a column for each outage. */

import type { Outcome } from "./reconnect-storm";
import { formatCount, formatRecoveryTime } from "./storm-tables";

const PANEL_WIDTH = 410;
const PANEL_HEIGHT = 88;
const ROW_HEIGHT = PANEL_HEIGHT + 34;
const COLUMN_WIDTH = PANEL_WIDTH + 28;
const LEFT = 82;
const TOP = 134;
const TICKS = [0, 10, 1_000, 100_000];
const HIGHEST = 400_000;

const STYLE = `
  text { font: 12px system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; fill: #59636e }
  .title { font-size: 20px; font-weight: 600; fill: #1f2328 }
  .strong { font-size: 13px; font-weight: 600; fill: #1f2328 }
  .paper { fill: #ffffff }
  .note { stroke: #ffffff; stroke-width: 4; paint-order: stroke }
  .outage { fill: #818b98; fill-opacity: 0.2 }
  .grid { stroke: #818b98; stroke-opacity: 0.25 }
  .quota { stroke: #9a6700; stroke-dasharray: 5 4 }
  .quota-label { fill: #9a6700 }
  .attempts { fill: #0969da; fill-opacity: 0.15; stroke: #0969da; stroke-width: 1.5; stroke-linejoin: round }
  .end { stroke: #59636e; stroke-width: 1.5 }
  @media (prefers-color-scheme: dark) {
    text { fill: #9198a1 }
    .title, .strong { fill: #f0f6fc }
    .paper { fill: #0d1117 }
    .note { stroke: #0d1117 }
    .quota { stroke: #d29922 }
    .quota-label { fill: #d29922 }
    .attempts { fill: #4493f8; fill-opacity: 0.25; stroke: #4493f8 }
    .end { stroke: #9198a1 }
  }`;

export function drawPicture(columns: readonly (readonly Outcome[])[]): string {
  const outcomes = columns.flat();
  const [first] = outcomes;
  if (!first) {
    throw new Error("a picture needs at least one outcome");
  }
  const { clients, rate, seed } = first.storm;
  const rows = outcomes.length / columns.length;
  const width = LEFT + columns.length * COLUMN_WIDTH;
  const bottom = TOP + rows * ROW_HEIGHT - 34;
  const height = bottom + 62;
  const seconds = 50 * Math.ceil(Math.max(...outcomes.map(({ attempts }) => attempts.length)) / 50);
  const x = (second: number) => round((second / seconds) * PANEL_WIDTH);
  const y = (count: number) => round(PANEL_HEIGHT * (1 - Math.log10(1 + count) / Math.log10(1 + HIGHEST)));

  const drawPanel = (outcome: Outcome) => {
    const { attempts, connectedAt, storm } = outcome;
    const isEverybodyBack = connectedAt.length === storm.clients;
    const end = x((connectedAt.at(-1) ?? 0) / 1_000);
    const isRoomOnTheRight = end < PANEL_WIDTH / 2;
    const endLabel = drawText(
      isRoomOnTheRight ? end + 7 : end - 7,
      13,
      "note",
      `all back ${formatRecoveryTime(outcome, 1)} s after the outage`,
      isRoomOnTheRight ? "start" : "end",
    );
    const steps = attempts.map((count, second) => `V${y(count)}H${x(second + 1)}`).join("");
    return [
      `<rect class="outage" width="${x(storm.outageSeconds)}" height="${PANEL_HEIGHT}"/>`,
      ...TICKS.map((tick) => drawLine("grid", 0, y(tick), PANEL_WIDTH, y(tick))),
      `<path class="attempts" d="M0 ${PANEL_HEIGHT}${steps}V${PANEL_HEIGHT}"/>`,
      drawLine("quota", 0, y(rate), PANEL_WIDTH, y(rate)),
      ...(isEverybodyBack ? [drawLine("end", end, 0, end, PANEL_HEIGHT), endLabel] : []),
    ].join("");
  };

  const drawColumn = (column: readonly Outcome[], index: number) => {
    const left = LEFT + index * COLUMN_WIDTH;
    const outage = `Outage of ${column[0]?.storm.outageSeconds} s`;
    const times = Array.from({ length: seconds / 50 + 1 }, (_, tick) => 50 * tick);
    return [
      drawText(left, 92, "strong", outage),
      ...column.map((outcome, row) => drawGroup(left, TOP + row * ROW_HEIGHT, drawPanel(outcome))),
      ...times.map((time) => drawText(left + x(time), bottom + 18, "", String(time), "middle")),
      drawText(left + PANEL_WIDTH / 2, bottom + 38, "", "seconds since the connections were lost", "middle"),
    ].join("\n");
  };

  const rowLabels = columns[0]?.map(({ policy }, row) => {
    const ticks = TICKS.map((tick) => drawText(-8, y(tick) + 4, "", formatCount(tick), "end"));
    return drawGroup(LEFT, TOP + row * ROW_HEIGHT, [drawText(0, -10, "strong", policy.name), ...ticks].join(""));
  });
  const title = `${formatCount(clients)} clients reconnect after a restart`;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-labelledby="title">
<title id="title">${title}: attempts a second for each reconnect policy</title>
<style>${STYLE}
</style>
<rect class="paper" width="${width}" height="${height}" rx="8"/>
${drawText(20, 36, "title", title)}
${drawText(20, 58, "", `Attempts that reach the gateway in each second, on a logarithmic scale. Grey: the outage. Simulation, seed ${seed}.`)}
${columns.map(drawColumn).join("\n")}
${rowLabels?.join("\n")}
${drawText(LEFT + PANEL_WIDTH, TOP + y(rate) - 5, "quota-label", `accepted at most: ${formatCount(rate)} a second`, "end")}
</svg>
`;
}

function drawGroup(left: number, top: number, content: string): string {
  return `<g transform="translate(${left} ${top})">${content}</g>`;
}

function drawText(left: number, top: number, name: string, content: string, anchor = "start"): string {
  return `<text class="${name}" x="${left}" y="${top}" text-anchor="${anchor}">${content}</text>`;
}

function drawLine(name: string, x1: number, y1: number, x2: number, y2: number): string {
  return `<line class="${name}" x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}"/>`;
}

function round(value: number): number {
  return Math.round(10 * value) / 10;
}
