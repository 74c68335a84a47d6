// What the pointer and the keyboard do on the map: move, zoom, select, point, click.

const TOOLS = { move: "Move", lasso: "Lasso", box: "Box", zoom: "Zoom to box" };
const CLICK = 4, NARROW = 640, WHEEL = 0.0015;
const pointers = new Map();
let drag = null, pointed = null;
const hoverThere = () => pointed && hover(...pointed);

function leavePlot() {
  pointed = null;
  leave();
}

function chooseTool(name) {
  state.tool = name;
  document.querySelectorAll("#tools [data-tool]").forEach((element) =>
    element.setAttribute("aria-pressed", String(element.dataset.tool === name)));
}

function showTools() {
  const elements = Object.entries(TOOLS).map(([name, words]) => {
    const element = button(words, () => chooseTool(name));
    element.dataset.tool = name;
    return element;
  });
  $("tools").prepend(...elements);
  chooseTool("move");
}

function pixelAt(event) {
  const box = $("plot").getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

function zoomAt([px, py], factor) {
  const [x, y] = unitsAt(px, py), scale = view.scale * factor;
  moveTo(x + (view.width / 2 - px) * scale, y + (py - view.height / 2) * scale, scale);
}

const boxOf = ([x0, y0], [x1, y1]) => [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];

function pressed(event) {
  if (event.button !== 0 || event.target.closest("button")) return;
  const at = pixelAt(event);
  pointers.set(event.pointerId, at);
  $("plot").setPointerCapture(event.pointerId);
  drag = { from: at, path: [at], start: { ...view }, moved: false };
}

function moved(event) {
  const at = pixelAt(event);
  if (event.target.closest("button")) { leavePlot(); return; }
  if (!pointers.has(event.pointerId)) { pointed = at; onNextFrame(hoverThere); return; }
  const before = pointers.get(event.pointerId);
  pointers.set(event.pointerId, at);
  if (pointers.size === 2) { pinched(event.pointerId, before, at); return; }
  const [dx, dy] = [at[0] - drag.from[0], at[1] - drag.from[1]];
  drag.moved ||= Math.hypot(dx, dy) > CLICK;
  if (!drag.moved) return;
  leavePlot();
  drag.path.push(at);
  if (state.tool === "move") moveTo(drag.start.x - dx * view.scale, drag.start.y + dy * view.scale, view.scale);
  else {
    state.outline = state.tool === "lasso" ? drag.path : boxOf(drag.from, at);
    onNextFrame(drawMarks);
  }
}

// Two fingers: their distance zooms.
function pinched(id, before, at) {
  const other = [...pointers].find(([key]) => key !== id)[1], far = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]);
  zoomAt(other, far(before) / Math.max(1, far(at)));
  drag = { ...drag, from: at, start: { ...view }, moved: true };
}

function released(event) {
  if (!pointers.delete(event.pointerId)) return;
  if (pointers.size) {  // the other finger goes on moving the map
    drag = { ...drag, from: [...pointers.values()][0], start: { ...view } };
    return;
  }
  const { outline, tool } = state, at = pixelAt(event);
  state.outline = null;
  if (!drag.moved) {
    const { row } = rowAt(...at);
    if (row >= 0) openImage(row, false);
  } else if (outline && event.type === "pointerup") {
    if (tool === "zoom") zoomTo(outline);
    else setList([...(event.shiftKey ? state.list : []), ...rowsInside(outline)]);
  }
  redraw();
}

function zoomTo([[x0, y0], , [x1, y1]]) {
  const factor = Math.max(Math.abs(x1 - x0) / view.width, Math.abs(y1 - y0) / view.height);
  moveTo(...unitsAt((x0 + x1) / 2, (y0 + y1) / 2), view.scale * Math.max(factor, 0.01));
}

function moveByKey(event) {
  if (event.altKey || event.ctrlKey || event.metaKey || event.target !== $("plot")) return;
  const { x, y, scale } = view, step = 0.15 * view.width * scale;
  const moves = {
    ArrowLeft: () => moveTo(x - step, y, scale), ArrowRight: () => moveTo(x + step, y, scale),
    ArrowUp: () => moveTo(x, y + step, scale), ArrowDown: () => moveTo(x, y - step, scale),
    "+": () => moveTo(x, y, scale / 1.4), "=": () => moveTo(x, y, scale / 1.4),
    "-": () => moveTo(x, y, scale * 1.4), 0: () => fit(),
    Enter: () => {
      const { row } = nearestRow(view.width / 2, view.height / 2);
      if (row >= 0) openImage(row, true);
    },
  };
  if (!Object.hasOwn(moves, event.key)) return;
  moves[event.key]();
  event.preventDefault();
}

function connectTools() {
  const plot = $("plot");
  plot.addEventListener("pointerdown", pressed);
  plot.addEventListener("pointermove", moved);
  plot.addEventListener("pointerup", released);
  plot.addEventListener("pointercancel", released);
  plot.addEventListener("pointerleave", leavePlot);
  plot.addEventListener("keydown", moveByKey);
  plot.addEventListener("wheel", (event) => {
    if (window.innerWidth <= NARROW) return;  // the page scrolls
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 33 : 1;
    zoomAt(pixelAt(event), Math.exp(WHEEL * lines * event.deltaY));
  }, { passive: false });
}
