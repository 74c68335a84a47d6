// Marks: what the user says about images, and the ranking of all other images by them.
//
// setMark(rows, { mark, name })  changes marks; a property that is missing stays
// marksAsText()        the text of marks.csv
// loadMarks(text)      adds the marks of a file; a promise of what to tell the user
//
// Marks are kept in the browser under the digest of the listed images, so that they are there
// when the page is opened again and on the page of the contact sheets, and in marks.csv,
// which `astromorph rank` reads too. Both name images by their ids: another run of the same
// list may have other rows. Marks of images that are not on this map are kept with the others.

const STORAGE = `astromorph marks ${page.marks}`;
const RANKED = 24, SCORE = "score by marks", MARK_PICTURE = 64, LARGE_PICTURE = 208;
const marks = new Map();
let elsewhere = [];  // lines of a file of marks whose images are not on this map
let ranking = null, rankedBy = "", isStored = true, rankingNumber = 0, openRecord = null;

// ---- the marks, and where they are kept ----

const idOf = async (row) => {
  const [chunk, k] = chunkOf(row, "names"), [, path, id] = await loadNames(chunk);
  return [id.text(k), path.text(k)];
};

async function setMark(rows, change) {
  await recalled;
  for (const row of [rows].flat()) {
    const [id, path] = await idOf(row), { mark, name } = { mark: "", name: "", ...marks.get(row), ...change };
    mark || name ? marks.set(row, { mark, name, id, path }) : marks.delete(row);
  }
  keepMarks();
  await rankByMarks();
}

function keepMarks() {
  isStored = keepLines(STORAGE, linesOfMarks());
}

// Marks of this page are changed only after those in the browser have been read.
let recalled = Promise.resolve();

function recallMarks() {
  recalled = recalled.then(takeKeptMarks).catch((error) => showProblem(error.message)).then(rankByMarks);
}

async function takeKeptMarks() {
  const lines = keptLines(STORAGE);
  if (lines === null) { isStored = false; return; }
  marks.clear();
  elsewhere = [];
  if (lines.length) await takeLines(lines, await findRows(lines));
}

// Lines as in marks.csv, and the row of each, which is also a hint for the next time.
const linesOfMarks = () => [...[...marks].sort((a, b) => a[0] - b[0]).map(([row, { id, path, mark, name }]) =>
  ({ row, image_id: id, path, mark, class: name })), ...elsewhere];

const marksAsText = () => textOfMarks(linesOfMarks());

// Adds marks, given as lines and the row of each, or undefined.
function takeLines(lines, rows) {
  const { read, unknown } = combineMarks(lines, rows);
  const isSame = (one, other) => one.image_id === other.image_id && one.path === other.path;
  elsewhere = [...elsewhere.filter((one) => !unknown.some((other) => isSame(one, other))), ...unknown];
  return Promise.all([...read].map(async ([row, one]) => {
    const [id, path] = await idOf(row);
    marks.set(row, { ...one, id, path });
  })).then(() => [read.size, unknown.length]);
}

async function loadMarks(text) {
  await recalled;
  const rows = readMarks(text);
  const [known, unknown] = await takeLines(rows, await findRows(rows));
  keepMarks();
  await rankByMarks();
  return `${formatCount(known, "mark")} loaded.` + (unknown ? ` ${formatCount(unknown, "marked image")} not on this map.` : "");
}

// The row of each line, by its id, or by its path if the id is unknown. If all lines have
// rows with their ids, only the names of these rows are loaded.
async function findRows(lines) {
  const isHere = async ({ row, image_id: id }) => Number.isInteger(row) && row >= 0 && row < page.number && (await idOf(row))[0] === id;
  if ((await Promise.all(lines.map(isHere))).every(Boolean)) return lines.map((line) => line.row);
  const ids = new Map(lines.map((line) => [line.image_id, undefined])), paths = new Map(lines.map((line) => [line.path, undefined]));
  const seen = new Set();
  for (let chunk = 0; chunk * page.rows.names < page.number; chunk++) {
    const [, path, id] = await loadNames(chunk), start = chunk * page.rows.names;
    for (let k = 0; k < Math.min(page.rows.names, page.number - start); k++) {
      const name = path.text(k);
      if (ids.has(id.text(k))) ids.set(id.text(k), start + k);
      if (!paths.has(name)) continue;
      paths.set(name, seen.has(name) ? undefined : start + k);  // a repeated path says nothing
      seen.add(name);
    }
  }
  return lines.map((line) => ids.get(line.image_id) ?? paths.get(line.path));
}

// ---- the ranking ----

async function rankByMarks() {
  const number = ++rankingNumber, targets = findTargets(marks);
  const target = targets.find((one) => keyOf(one) === rankedBy) ?? targets[0];
  if (!target) {
    ranking = null;
    if (state.colour === SCORE) { $("colour").value = page.first; await colourBy(page.first); }
    $("scores")?.remove();
    showMarks();
    return;
  }
  const group = await loadGroup("components", (share) => showProgress(share < 1 ? `Loading components: ${Math.round(100 * share)} %` : ""));
  if (number !== rankingNumber) return;
  const model = fitTarget(group, target, marks), scores = scoresOf(group, model);
  ranking = { targets, target, scores, likely: mostLikely(scores, marks, RANKED),
    informative: mostInformative(group, scores, marks, RANKED) };
  rankedBy = keyOf(target);
  addColumn({ name: SCORE, numbers: Float32Array.from(scores) });
  if (!$("scores")) $("colour").append(make("optgroup", { id: "scores", label: "Marks" }, [make("option", { value: SCORE, textContent: SCORE })]));
  showMarks();
  if (state.colour === SCORE || state.filters.has(SCORE)) await colourBy(state.colour);
}

const keyOf = ({ name, isClass }) => (isClass ? "class " : "") + name;

// ---- the panel ----

const marksBody = addPanel("marks-panel", "Marks");
const nameKeys = () => namesOfClasses(marks).slice(0, MAX_DIGITS);

function showMarks() {
  const focused = focusedPlace();
  fill(marksBody, [
    make("p", { className: "note", id: "mark-count", ariaLive: "polite", textContent: marks.size || elsewhere.length
      ? `${describeMarks(marks)} ` +
        (elsewhere.length ? `${formatCount(elsewhere.length, "marked image")} not on this map. ` : "") +
        (isStored ? "Kept in this browser." : "Kept until this page is closed: save them.")
      : "Click an image, then press i for interesting, n for not interesting, c for a class, u to unmark. All other images are then ranked." }),
    make("div", { className: "row" }, [
      button("Save marks", () => saveFile("marks.csv", marksAsText()), { disabled: !marks.size && !elsewhere.length, title: "marks.csv, which astromorph rank reads" }),
      button("Load marks", () => $("marks-file").click()),
      button("Clear", clearMarks, { disabled: !marks.size && !elsewhere.length })]),
    ...(ranking ? rankingParts() : [])]);
  if (focused) focusPlace(focused);
  showOpenMark();
}

async function clearMarks() {
  await recalled;
  if (!confirm(`Remove all ${formatCount(marks.size + elsewhere.length, "mark")}? Save them first to keep them.`)) return;
  marks.clear();
  elsewhere = [];
  keepMarks();
  rankByMarks();
}

function rankingParts() {
  const { targets, target, scores, likely, informative } = ranking, isRough = !target.labels.includes(false);
  const options = targets.map((one) => make("option", { value: keyOf(one), textContent: one.isClass ? `class ${one.name}` : one.name, selected: one === target }));
  const choice = make("select", { id: "ranked-by", onchange: (event) => { rankedBy = event.target.value; rankByMarks(); } }, options);
  const score = (row) => ({ words: scores[row].toFixed(3) });
  const both = [["likely", "Most likely", likely], ["informative", "Most informative next", informative]];
  return [
    make("div", { className: "row" }, [
      make("label", {}, ["Ranked by ", choice]),
      button("Colour the map", () => { $("colour").value = SCORE; colourBy(SCORE); }, { title: "By the score of each image" })]),
    isRough ? make("p", { className: "note", textContent: "There are no counter-examples yet: also mark images that are not interesting, or of other classes." }) : null,
    make("div", { id: "mark-preview" }),
    ...both.flatMap(([id, title, rows]) => {
      const row = strip(rows, MARK_PICTURE, title, score);
      row.dataset.strip = id;
      return [make("h3", { textContent: title }), row];
    })];
}

// The strip and the place in it that have focus, so that they can be restored.
function focusedPlace() {
  const focused = document.activeElement?.closest("[data-strip] [data-row]");
  return focused ? { id: focused.parentElement.dataset.strip, place: [...focused.parentElement.children].indexOf(focused) } : null;
}

function focusPlace({ id, place }) {
  const buttons = [...(marksBody.querySelector(`[data-strip=${id}]`)?.children ?? [])];
  const next = buttons[Math.min(place, buttons.length - 1)];
  buttons.forEach((one) => { one.tabIndex = one === next ? 0 : -1; });
  (next ?? $("plot")).focus({ preventScroll: true });
}

// The focused picture of a strip is also shown large.
marksBody.addEventListener("focusin", ({ target }) => {
  const row = target.closest("[data-strip] [data-row]")?.dataset.row;
  if (row !== undefined && $("mark-preview")) $("mark-preview").replaceChildren(picture(Number(row), LARGE_PICTURE));
});

// ---- the marks of the open image ----

onOpen((record) => {
  openRecord = record;
  const element = make("div", { id: "open-mark" });
  fillOpenMark(element, record.row);
  return element;
});

function showOpenMark() {
  if ($("open-mark") && openRecord?.row === state.row) fillOpenMark($("open-mark"), state.row);
}

function fillOpenMark(element, row) {
  const { mark, name } = marks.get(row) ?? { mark: "", name: "" };
  const choose = (text, value, key) => {
    const one = button(text, () => setMark(row, { mark: mark === value ? "" : value }), { title: `Key ${key}` });
    one.setAttribute("aria-pressed", String(mark === value));
    return one;
  };
  const score = ranking ? `Score ${ranking.scores[row].toFixed(3)}.` : "";
  fill(element, [
    make("div", { className: "row marking" }, [choose("Interesting", INTERESTING, "i"), choose("Not interesting", NOT_INTERESTING, "n"),
      button(name ? `Class: ${name}` : "Class", () => askClass(row), { title: "Key c" }),
      button("Unmark", () => setMark(row, { mark: "", name: "" }), { disabled: !mark && !name, title: "Key u" })]),
    score ? make("p", { className: "note", textContent: score }) : null]);
}

const askClass = (row) => askForClass(marks.get(row)?.name ?? "", nameKeys(), (name) => markAndGoOn(row, { name }));

// ---- keys ----

// In a strip of the ranking, the next image takes the place of the marked one; in other
// rows of pictures, the next picture gets focus.
async function markAndGoOn(row, change) {
  const focused = document.activeElement?.closest(".strip [data-row]");
  if (focused && Number(focused.dataset.row) === row && !focused.closest("[data-strip]")) focused.nextElementSibling?.focus();
  await setMark(row, change);
}

function connectMarks() {
  onKey("i", (row) => markAndGoOn(row, { mark: INTERESTING }));
  onKey("n", (row) => markAndGoOn(row, { mark: NOT_INTERESTING }));
  onKey("u", (row) => markAndGoOn(row, { mark: "", name: "" }));
  onKey("c", askClass);
  for (let k = 1; k <= MAX_DIGITS; k++) onKey(String(k), (row) => {
    const name = nameKeys()[k - 1];
    if (name) markAndGoOn(row, { name });
  });
  const file = make("input", { type: "file", id: "marks-file", accept: ".csv,text/csv", hidden: true, onchange: async () => {
    const [chosen] = file.files;
    file.value = "";
    if (!chosen) return;
    try { showProgress(await loadMarks(await chosen.text())); } catch (error) { showProblem(`${chosen.name}: ${error.message}`); }
  } });
  marksBody.after(file);
  recallMarks();
  onMarksChanged(STORAGE, recallMarks);
}
