/** Read and show JSON values of unknown shape: events, answers, log records, clients' messages. */

export type Facts = Readonly<Record<string, unknown>>;

export function isObject(value: unknown): value is Facts {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function toObject(value: unknown): Facts {
  return isObject(value) ? value : {};
}

/** Return a text that is not empty, or a number as text; undefined for any other value. */
export function toText(value: unknown): string | undefined {
  if (typeof value === "number") {
    return String(value);
  }
  return typeof value === "string" && value !== "" ? value : undefined;
}

export function toNumber(value: unknown): number | undefined {
  return typeof value === "number" && Number.isFinite(value) ? value : undefined;
}

export function toList(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

/** Return the object in a JSON text; an empty object for any other text. */
export function parseObject(text: unknown): Facts {
  return typeof text === "string" ? toObject(parse(text)) : {};
}

const MAX_DEPTH = 64;

/** Return JSON with line breaks and indentation. A text that is itself an object or array in JSON is shown as that. */
export function formatJson(value: unknown): string {
  const compact = typeof value === "string" ? value : compactJson(value);
  if (!/^\s*[[{]/.test(compact) || measureNesting(compact) > MAX_DEPTH) {
    return escapeHiddenCharacters(compact);
  }
  const parsed = parse(compact);
  return escapeHiddenCharacters(parsed === undefined ? compact : JSON.stringify(parsed, undefined, 2));
}

function compactJson(value: unknown): string {
  try {
    return JSON.stringify(value) ?? String(value);
  } catch (error) {
    return `This value cannot be shown: ${String(error)}`; // it is nested too deeply
  }
}

/**
 * Return how deeply a JSON text is nested. Brackets within strings count, too, so the result may be too high.
 *
 * Deep nesting must not be indented: the indentation of 16,000 nested lists would have 500 MB.
 */
function measureNesting(text: string): number {
  let depth = 0;
  let deepest = 0;
  for (const character of text) {
    if (character === "[" || character === "{") {
      depth += 1;
      deepest = Math.max(deepest, depth);
    } else if (character === "]" || character === "}") {
      depth -= 1;
    }
  }
  return deepest;
}

/**
 * Escape control characters, and characters that change the direction of text.
 *
 * Otherwise a client's text could look different from what was sent.
 */
export function escapeHiddenCharacters(text: string): string {
  return text.replace(/(?![\n\t])[\p{Cc}\p{Bidi_Control}\u2028\u2029]/gu, (character) => {
    const code = character.codePointAt(0) ?? 0;
    return `\\u${code.toString(16).padStart(4, "0")}`;
  });
}

/** Return the text as one line of at most `limit` characters. */
export function shorten(text: string, limit = 160): string {
  const line = escapeHiddenCharacters(text.replace(/\s+/g, " ").trim());
  const characters = Array.from(line.slice(0, limit * 2 + 2));
  return characters.length > limit ? `${characters.slice(0, limit).join("")}…` : characters.join("");
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
