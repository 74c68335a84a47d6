// Marks as lines of marks.csv, { image_id, path, mark, class }, on the map and beside the
// contact sheets; and where a browser keeps them.
//
// textOfMarks(lines), readMarks(text)   marks.csv
// combineMarks(lines, keys)   { read: a Map from keys to { mark, name }, unknown: lines
//                             without a key }; lines that contradict each other are an error
// describeMarks(marks)        their numbers, in words
// keepLines(key, lines)       in this browser; false if it does not allow that
// keptLines(key)              null if it does not allow that
// onMarksChanged(key, work)   calls work() when another page has changed them

const MARK_COLUMNS = ["image_id", "path", "mark", "class"], MARK_WORDS = ["interesting", "not interesting"];
const MAX_DIGITS = 9;  // classes that have a key

const textOfMarks = (lines) => csv([MARK_COLUMNS, ...lines.map((line) => MARK_COLUMNS.map((name) => spreadsheetSafe(line[name])))]);
const namesOfClasses = (marks) => [...new Set([...marks.values()].map(({ name }) => name).filter(Boolean))].sort();

function readMarks(text) {
  const [header, ...lines] = cellsOfCsv(text), names = (header ?? []).map((name) => name.toLowerCase());
  const at = Object.fromEntries(MARK_COLUMNS.map((name) => [name, names.indexOf(name)]));
  if (Math.max(at.image_id, at.path) < 0 || Math.max(at.mark, at.class) < 0)
    throw new Error(`The first line of the file must name the columns, such as ${MARK_COLUMNS.join(",")}.`);
  return lines.map((line) => Object.fromEntries(MARK_COLUMNS.map((name) => [name, line[at[name]] ?? ""])));
}

function toMark(line) {
  const text = line.mark.toLowerCase().replace(/[\s_-]+/g, " ").trim();
  if (["", ...MARK_WORDS].includes(text)) return text;
  throw new Error(`${line.path || line.image_id}: found the mark “${line.mark}”; allowed are ` +
    `${MARK_WORDS.map((word) => `“${word}”`).join(", ")} and an empty cell.`);
}

function combineMarks(lines, keys) {
  const read = new Map(), unknown = [];
  lines.forEach((line, k) => {
    const mark = toMark(line), name = line.class, key = keys[k], before = read.get(key) ?? { mark: "", name: "" };
    if (!mark && !name) return;
    if (key === undefined) { unknown.push({ image_id: line.image_id, path: line.path, mark, class: name }); return; }
    if ((mark && before.mark && mark !== before.mark) || (name && before.name && name !== before.name))
      throw new Error(`Two lines of the file contradict each other about ${line.path || line.image_id}; remove one of them.`);
    read.set(key, { mark: mark || before.mark, name: name || before.name });
  });
  return { read, unknown };
}

function describeMarks(marks) {
  const all = [...marks.values()], named = all.filter(({ name }) => name).length;
  const counts = MARK_WORDS.map((word) => `${all.filter(({ mark }) => mark === word).length.toLocaleString("en")} ${word}`);
  return `${counts.join(", ")}${named ? `, ${named.toLocaleString("en")} with a class` : ""}.`;
}

// The cells of a CSV file with commas, semicolons or tabs.
function cellsOfCsv(text) {
  const clean = text.replace(/^\ufeff/, ""), header = clean.split("\n").find((line) => line.trim()) ?? "";
  const count = (sign) => header.split(sign).length, separator = [",", ";", "\t"].sort((a, b) => count(b) - count(a))[0];
  const lines = [[""]];
  let quoted = false;
  for (let k = 0; k < clean.length; k++) {
    const sign = clean[k], line = lines.at(-1);
    if (quoted && sign === '"' && clean[k + 1] === '"') { line[line.length - 1] += '"'; k++; }
    else if (sign === '"' && (quoted || line.at(-1) === "")) quoted = !quoted;
    else if (!quoted && sign === separator) line.push("");
    else if (!quoted && /[\r\n]/.test(sign)) { if (line.length > 1 || line[0]) lines.push([""]); }
    else line[line.length - 1] += sign;
  }
  return lines.map((line) => line.map((cell) => unprotected(cell.trim()))).filter((line) => line.some(Boolean));
}

// Undoes `spreadsheetSafe`.
const unprotected = (text) => /^'+[=+\-@\t\r]/.test(text) ? text.slice(1) : text;

// ---- what the browser keeps ----

function keepLines(key, lines) {
  try {
    lines.length ? localStorage.setItem(key, JSON.stringify(lines)) : localStorage.removeItem(key);
    return true;
  } catch {
    return false;  // the browser does not allow it, or its storage is full
  }
}

function keptLines(key) {
  try { return JSON.parse(localStorage.getItem(key) ?? "[]"); } catch { return null; }
}

// Another page may be in another tab, or have been open between two visits of this one.
function onMarksChanged(key, work) {
  addEventListener("storage", (event) => { if (event.key === key || event.key === null) work(); });
  addEventListener("pageshow", (event) => { if (event.persisted) work(); });
}

// ---- the box for the name of a class ----

// Calls done(name) if the user has chosen one of `names`, another name, or none ("").
function askForClass(current, names, done) {
  const before = document.activeElement;
  const input = make("input", { type: "text", id: "class-name", autocomplete: "off", maxLength: 80, value: current });
  const box = make("dialog", { id: "class-box" });
  const close = (name) => {
    box.close();
    if (name !== null) done(name.trim());
  };
  const form = make("form", { method: "dialog", onsubmit: (event) => { event.preventDefault(); close(input.value); } }, [
    make("label", {}, ["Class ", input]), button("Cancel", () => close(null))]);
  const used = names.map((name, k) => button(`${k + 1} ${name}`, () => close(name)));
  fill(box, [form, names.length ? make("div", { className: "row" }, used) : null,
    make("p", { className: "note", textContent: "Enter sets the class; an empty name removes it. The keys 1 to 9 set these classes without this box." })]);
  box.addEventListener("close", () => { box.remove(); before?.isConnected && before.focus({ preventScroll: true }); });
  document.body.append(box);
  box.showModal();
  input.select();
}
