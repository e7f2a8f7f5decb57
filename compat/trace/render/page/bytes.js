// Bytes, as a trace has them: text in which U+DC80 to U+DCFF are bytes that are not UTF-8,
// as with Python's surrogateescape.
//
// Rule 1: conversion to bytes and back gives the same text.
// Rule 2: all bytes are shown, in their order. Characters that are invisible, or that
// would reorder visible ones, are shown as escapes.

const LOWEST_ESCAPE = 0xdc80;
const HIGHEST_ESCAPE = 0xdcff;

// Control and format characters (the latter reorder text or have no width), unusual
// spaces, unassigned and private characters, and lone surrogates.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Zl}\p{Zp}\p{Cs}]/u;

const ESCAPES = { "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0" };

function toBytes(text) {
  const encoder = new TextEncoder();
  const bytes = [];
  for (const character of text) {
    const code = character.codePointAt(0);
    if (code >= LOWEST_ESCAPE && code <= HIGHEST_ESCAPE) bytes.push(code - 0xdc00);
    else bytes.push(...encoder.encode(character));
  }
  return bytes;
}

function toText(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; ) {
    const size = characterAt(bytes, at);
    text += size
      ? new TextDecoder().decode(new Uint8Array(bytes.slice(at, at + size)))
      : String.fromCharCode(0xdc00 + bytes[at]);
    at += size || 1;
  }
  return text;
}

// The size of the whole character that begins there; 0 for none.
function characterAt(bytes, at) {
  const size = sizeOf(bytes[at]);
  if (size < 2) return size;
  const slice = new Uint8Array(bytes.slice(at, at + size));
  try {
    new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(slice);
    return size;
  } catch (error) {
    if (error instanceof TypeError) return 0;
    throw error;
  }
}

function sizeOf(first) {
  if (first < 0x80) return 1;
  if (first < 0xc2) return 0;
  if (first < 0xe0) return 2;
  if (first < 0xf0) return 3;
  return first < 0xf5 ? 4 : 0;
}

// Visible text: a list of [text, is it an escape].
function seen(text) {
  const pieces = [];
  for (const character of text) {
    const escape = escaped(character);
    const last = pieces[pieces.length - 1];
    if (!escape && last && !last[1]) last[0] += character;
    else pieces.push([escape || character, Boolean(escape)]);
  }
  return pieces;
}

// The same as one string: for labels, and for all names and errors of a program.
function visibleText(text) {
  return UNSEEN.test(text) ? seen(text).map(([shown]) => shown).join("") : text;
}

// The same for a line of source, whose tabs are indentation.
function visibleLine(text) {
  return text.split("\t").map(visibleText).join("\t");
}

function escaped(character) {
  const code = character.codePointAt(0);
  if (ESCAPES[character]) return ESCAPES[character];
  if (code >= LOWEST_ESCAPE && code <= HIGHEST_ESCAPE) return hex(code - 0xdc00);
  if (!UNSEEN.test(character)) return "";
  return code < 0x80 ? hex(code) : `\\u${code.toString(16).padStart(4, "0")}`;
}

function hex(byte) {
  return `\\x${byte.toString(16).padStart(2, "0")}`;
}
