// Marks on the page of contact sheets, by keys, as on the map; both pages share them where
// the browser allows it, and both save marks.csv. An image has a frame on several sheets.

const bar = document.getElementById("marks"), STORAGE = bar.dataset.key;
const [INTERESTING, NOT_INTERESTING] = MARK_WORDS, SIGNS = { [INTERESTING]: "✓", [NOT_INTERESTING]: "✗" };
const frames = [...document.querySelectorAll(".frame[data-id]")];
const marks = new Map();  // the id of an image, or its path, to { mark, name, line }
let isStored = true, problem = "", current = null;

// ---- the marks ----

const keysOfPaths = new Map();  // only of paths that belong to one image
for (const { dataset: { id, path } } of frames) keysOfPaths.set(path, (keysOfPaths.get(path) ?? id) === id ? id : undefined);
const keyOf = ({ image_id: id, path }) => id || (keysOfPaths.get(path) ?? `path ${path}`);

const linesOfMarks = () => [...marks.values()].map(({ mark, name, line }) => ({ ...line, mark, class: name }));

function addLines(lines) {
  const keys = lines.map(keyOf), { read } = combineMarks(lines, keys);
  for (const [key, one] of read) marks.set(key, { ...one, line: { ...marks.get(key)?.line, ...lines[keys.indexOf(key)] } });
  return read.size;
}

function recallMarks() {
  const lines = keptLines(STORAGE);
  isStored = lines !== null;
  if (isStored) { marks.clear(); addLines(lines); }
  showMarks();
}

function changed() {
  isStored = keepLines(STORAGE, linesOfMarks());
  problem = "";
  showMarks();
}

function setMark(frame, change) {
  const { id, path } = frame.dataset, { mark, name, line } = { mark: "", name: "", line: { image_id: id, path }, ...marks.get(id), ...change };
  mark || name ? marks.set(id, { mark, name, line }) : marks.delete(id);
  changed();
}

// ---- what is shown ----

function showMarks() {
  for (const frame of frames) {
    const { mark, name } = marks.get(frame.dataset.id) ?? { mark: "", name: "" };
    const words = [mark && `${SIGNS[mark]} ${mark}`, name].filter(Boolean).join(", ");
    frame.replaceChildren(...words ? [make("span", { className: "mark", textContent: words })] : []);
    frame.setAttribute("aria-label", [frame.dataset.name, words].filter(Boolean).join(": "));
    frame.classList.toggle("current", frame === current);
  }
  const said = marks.size ? `${describeMarks(marks)} ${isStored ? "Kept in this browser." : "Kept until this page is closed: save them."}`
    : "Point at a picture and press i for interesting, n for not interesting, c for a class, u to unmark.";
  fill(bar, [make("p", { className: "note", id: "mark-count", ariaLive: "polite", textContent: said }),
    make("div", { className: "row" }, [
      button("Save marks", () => saveFile("marks.csv", textOfMarks(linesOfMarks())), { disabled: !marks.size, title: "marks.csv, which the map and astromorph rank read" }),
      button("Load marks", () => file.click()),
      button("Clear", clearMarks, { disabled: !marks.size })]),
    problem ? make("p", { className: "problem", role: "alert", textContent: problem }) : null]);
}

function clearMarks() {
  if (!confirm(`Remove all ${formatCount(marks.size, "mark")}? Save them first to keep them.`)) return;
  marks.clear();
  changed();
}

const file = make("input", { type: "file", id: "marks-file", accept: ".csv,text/csv", hidden: true, onchange: async () => {
  const [chosen] = file.files;
  file.value = "";
  if (!chosen) return;
  try {
    addLines(readMarks(await chosen.text()));
    changed();
  } catch (error) {
    problem = `${chosen.name}: ${error.message}`;
    showMarks();
  }
} });
bar.after(file);

// ---- keys: those of the map, for the picture that was pointed at or focused last ----

const nameKeys = () => namesOfClasses(marks).slice(0, MAX_DIGITS);

function choose(frame) {
  current?.classList.remove("current");
  current = frame;
  current?.classList.add("current");
}

for (const frame of frames) {
  frame.addEventListener("pointerenter", () => choose(frame));
  frame.addEventListener("focus", () => choose(frame));
  frame.addEventListener("pointerleave", () => { if (current === frame) choose(frames.find((one) => one === document.activeElement) ?? null); });
  frame.addEventListener("blur", () => { if (current === frame) choose(frames.find((one) => one.matches(":hover")) ?? null); });
}

const focusNext = (frame, step) => frames[frames.indexOf(frame) + step]?.focus();

// A focused picture passes the focus to the next one, so that a sheet is marked quickly.
function markAndGoOn(frame, change) {
  setMark(frame, change);
  if (document.activeElement === frame) focusNext(frame, 1);
}

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || !current || event.target.matches("input, select, textarea")) return;
  const frame = current, { mark, name } = marks.get(frame.dataset.id) ?? { mark: "", name: "" };
  const digit = /^[1-9]$/.test(event.key) ? nameKeys()[event.key - 1] : undefined;
  if (event.key === "i") markAndGoOn(frame, { mark: INTERESTING, name });
  else if (event.key === "n") markAndGoOn(frame, { mark: NOT_INTERESTING, name });
  else if (event.key === "u") markAndGoOn(frame, { mark: "", name: "" });
  else if (event.key === "c") askForClass(name, nameKeys(), (chosen) => markAndGoOn(frame, { mark, name: chosen }));
  else if (digit) markAndGoOn(frame, { mark, name: digit });
  else if (document.activeElement === frame && ["ArrowLeft", "ArrowRight"].includes(event.key)) focusNext(frame, event.key === "ArrowRight" ? 1 : -1);
  else return;
  event.preventDefault();
});

onMarksChanged(STORAGE, recallMarks);
recallMarks();
