"use strict";
// Data of the page. A row is the index of an image, from 0. Chunks are in the page, or
// are files of a folder beside it, which are loaded when they are needed.
//
// loadChunk(key)       a chunk as it was written (see chunks.py)
// loadColumn(name)     all cells of a column that can colour the map; `column(name)` is
//                      the same for a column that has been loaded
// addColumn(column)    adds { name, numbers: Float32Array, low, high } in memory; low and
//                      high are the ends of the colour scale
// loadRow(row)         all that is known about one image: { row, title, cell(name),
//                      neighbours: [{ row, distance }], duplicates: [row] }
// loadTitle(row)       its name alone
// loadGroup(name, progress)  several numbers of each row, from `Chunks.add_group`:
//                      { width, values, scales, offsets }; number k of a row is
//                      offsets[k] + scales[k] * values[row * width + k]

const $ = (id) => document.getElementById(id);
const page = JSON.parse($("page").textContent);
const KINDS = { int8: Int8Array, int32: Int32Array, uint8: Uint8Array, uint16: Uint16Array,
  uint32: Uint32Array, float32: Float32Array, float64: Float64Array };
const MAX_FACTS = 48;  // chunks in memory

// Remembers results, or the most recent ones; failed promises are forgotten.
function memoise(make, limit = Infinity) {
  const known = new Map(), recall = (key, ...further) => {
    const value = known.has(key) ? known.get(key) : make(key, ...further);
    known.delete(key);
    known.set(key, value);
    if (value instanceof Promise) value.catch(() => known.delete(key));
    if (known.size > limit) known.delete(known.keys().next().value);
    return value;
  };
  return Object.assign(recall, { forget: (key) => known.delete(key) });
}

const awaited = new Map();

// A file of another map is as if it were missing.
function receive(stamp, key, data) {
  if (stamp !== page.stamp) return;
  awaited.get(key)?.(data);
  awaited.delete(key);
}

function loadChunk(key) {
  const inPage = $(key);
  if (inPage) return Promise.resolve(JSON.parse(inPage.textContent));
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    const ended = () => {
      script.remove();
      if (awaited.delete(key)) reject(new Error(`The file ${key}.js cannot be loaded: the folder ` +
        `${page.chunks} must be next to this page, and belong to it.`));
    };
    awaited.set(key, resolve);
    Object.assign(script, { onload: ended, onerror: ended,
      src: `${page.chunks.split("/").map(encodeURIComponent).join("/")}/${key}.js` });
    document.head.append(script);
  });
}

function unpack({ type, base64 }) {
  if (Uint8Array.fromBase64) return new KINDS[type](Uint8Array.fromBase64(base64).buffer);
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let k = 0; k < bytes.length; k++) bytes[k] = text.charCodeAt(k);
  return new KINDS[type](bytes.buffer);
}

function cellsOf(data) {
  if (data.numbers) {
    const numbers = unpack(data.numbers);
    const shortest = numbers instanceof Float32Array ? (v) => Number(v.toPrecision(7)) : (v) => v;
    return { numbers, text: (k) => Number.isNaN(numbers[k]) ? "" : String(shortest(numbers[k])) };
  }
  const codes = data.codes ? unpack(data.codes) : null, code = codes ? (k) => codes[k] : (k) => k;
  return { words: data.words, code, text: (k) => data.words[code(k)] };
}

// ---- columns ----

const loadedColumns = new Map();

const column = (name) => loadedColumns.get(name);
const unitOf = (name) => page.columns.find((c) => c.name === name)?.unit ?? "";

const loadColumn = memoise(async (name) => {
  if (!loadedColumns.has(name)) {
    const at = page.columns.findIndex((c) => c.name === name);
    loadedColumns.set(name, { ...page.columns[at], ...cellsOf(await loadChunk(`column-${at}`)) });
  }
  return column(name);
});

function addColumn({ name, numbers, low, high }) {
  const text = (row) => Number.isNaN(numbers[row]) ? "" : String(Number(numbers[row].toPrecision(5)));
  loadedColumns.set(name, { name, kind: "number", numbers, low, high, text, added: true });
  limits.forget(name);
}

const loadGroup = memoise(async (name, progress = () => {}) => {
  const { type, width, parts, scales, offsets } = page.groups[name];
  const values = new KINDS[type](page.number * width);
  for (let k = 0, at = 0; k < parts; k++) {
    const part = unpack(await loadChunk(`group-${name}-${k}`));
    values.set(part, at);
    at += part.length;
    progress((k + 1) / parts);
  }
  return { width, values, scales, offsets };
});

// ---- single images ----

const fileName = (path) => path.replace(/.*\//, "");
const titleOf = (names, k) => names[0].text(k) || fileName(names[1].text(k));
const loadNames = memoise(async (k) => (await loadChunk(`names-${k}`)).map(cellsOf));

const loadFacts = memoise(async (k) => {
  const { columns, nearest, distances, duplicates } = await loadChunk(`facts-${k}`);
  return { columns: columns.map(cellsOf), nearest: unpack(nearest), distances: unpack(distances), duplicates };
}, MAX_FACTS);

const chunkOf = (row, what) => [Math.floor(row / page.rows[what]), row % page.rows[what]];

async function loadTitle(row) {
  const [chunk, k] = chunkOf(row, "names");
  return titleOf(await loadNames(chunk), k);
}

async function loadRow(row) {
  const [ofNames, j] = chunkOf(row, "names"), [ofFacts, k] = chunkOf(row, "facts");
  const [names, facts] = await Promise.all([loadNames(ofNames), loadFacts(ofFacts)]);
  const width = page.neighbours, cells = new Map();
  page.names.forEach((name, c) => cells.set(name, () => names[c].text(j)));
  page.facts.forEach((name, c) => cells.set(name, () => facts.columns[c].text(k)));
  const cell = (name) => cells.has(name) ? cells.get(name)() : column(name)?.text(row) ?? "";
  const neighbours = Array.from({ length: width }, (_, n) => ({
    row: facts.nearest[k * width + n], distance: facts.distances[k * width + n] })).filter((n) => n.row >= 0);
  return { row, title: titleOf(names, j), cell, neighbours, duplicates: facts.duplicates[row] ?? [] };
}
