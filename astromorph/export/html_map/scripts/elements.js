// The state of the page, its panels, messages and keys.
//
// addPanel(id, title)   a section of the side column, below the list; returns the element,
//                       to be filled with `fill`; its heading stays
// onKey(key, handler)   calls handler(row, event) when the key is pressed while the map,
//                       the image, a row of pictures or nothing has focus. The row is that of the
//                       focused picture, else of the open image, else under the pointer;
//                       it is not called if there is none. `key` is as in KeyboardEvent
// currentRow()          that row, or -1
// showProblem(text), showProgress(text)   "" hides the progress

const state = {
  colour: "",             // name of the column
  painted: "",            // the column whose colours are shown, while another is loaded
  scale: null,            // { low, high } of the colours of numbers, null for categories
  filters: new Map(),     // column to hidden entries (Set) or { low, high }
  shown: new Uint8Array(page.number).fill(1),
  row: -1, trail: [],     // the open image, and those before it
  selected: "",           // the entry of the legend whose images are the list
  hovered: -1, found: [], list: [], neighbours: [], tool: "move",
};

const shortened = (text, length) => text.length > length ? `${text.slice(0, length - 1)}…` : text;

function facts(pairs) {
  return make("dl", { className: "facts" }, pairs.filter(([, text]) => text !== "").flatMap(
    ([name, text]) => [make("dt", { textContent: name }), make("dd", { textContent: text })]));
}

function addPanel(id, title) {
  const body = make("div", { id });
  const panel = make("section", {}, [make("h2", { textContent: title }), body]);
  panel.setAttribute("aria-label", title);
  $("side").append(panel);
  return body;
}

function showProblem(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = false;
}

function showProgress(text) {
  $("progress").textContent = text;
}

const waiting = new Set();

function onNextFrame(work) {
  if (waiting.has(work)) return;
  waiting.add(work);
  requestAnimationFrame(() => { waiting.delete(work); work(); });
}

// ---- keys ----

const keyHandlers = new Map();

function onKey(key, handler) {
  keyHandlers.set(key, [...(keyHandlers.get(key) ?? []), handler]);
}

function currentRow() {
  const focused = document.activeElement?.closest("[data-row]");
  if (focused) return Number(focused.dataset.row);
  return state.row >= 0 ? state.row : state.hovered;
}

function handleKey(event) {
  const { key, target } = event;
  if (event.altKey || event.ctrlKey || event.metaKey || !keyHandlers.has(key)) return;
  const isFree = target === document.body;  // nothing has focus
  if (!isFree && !target.closest("#plot, #image, .strip") || target.matches("input, select, textarea")) return;
  const row = currentRow();
  if (row < 0) return;
  keyHandlers.get(key).forEach((handler) => handler(row, event));
  event.preventDefault();
}
