import { expect, it } from "vitest";
import { checkPasswordRules } from "../src/password";

const STRICT = {
  minimumLength: 12,
  requireLowercase: true,
  requireUppercase: true,
  requireNumbers: true,
  requireSymbols: true,
};

function findBrokenRules(password: string): string[] {
  return checkPasswordRules(STRICT, password)
    .filter(({ isMet }) => !isMet)
    .map(({ text }) => text);
}

it.each([
  ["Correct-horse-7", []],
  ["Correct-ho7", ["12 characters"]],
  ["CORRECT-HORSE-7", ["a lowercase letter"]],
  ["correct-horse-7", ["an uppercase letter"]],
  ["Correct-horse-x", ["a digit"]],
  ["Correcthorse7x", ["a symbol"]],
  ["", ["12 characters", "a lowercase letter", "an uppercase letter", "a digit", "a symbol"]],
])("%j breaks %j", (password, broken) => {
  expect(findBrokenRules(password)).toEqual(broken);
});

it.each([..."^$*.[]{}()?-\"!@#%&/\\,><':;|_~`+="])("%s is a symbol", (symbol) => {
  expect(findBrokenRules(`Correcthorse7${symbol}x`)).toEqual([]);
});

it("a space is a symbol, except at the beginning and the end", () => {
  expect(findBrokenRules("Correct horse7")).toEqual([]);
  expect(findBrokenRules(" Correcthorse7")).toEqual(["a symbol"]);
  expect(findBrokenRules("Correcthorse7 ")).toEqual(["a symbol"]);
});

it("shows only the rules that the pool has", () => {
  const lenient = { ...STRICT, minimumLength: 8, requireSymbols: false, requireUppercase: false };
  expect(checkPasswordRules(lenient, "").map(({ text }) => text)).toEqual([
    "8 characters",
    "a lowercase letter",
    "a digit",
  ]);
});
