// Images outside of the view: arrows with their numbers at the edges of the map.
//
// countShown(left, bottom, right, top)   shown images in a rectangle of stored positions,
//                                        whose ends belong to it
// roughCount(left, top, right, bottom)   about as many, in a rectangle of pixels; fast
// showEdges()                            updates the arrows

const LAST = 65535, EDGES = { left: "◀", right: "▶", above: "▲", below: "▼" };

// For each corner of a cell of the grid: the number of shown images to its lower left.
function sumCells(start, paint) {
  const wide = GRID + 1, sums = new Int32Array(wide * wide);
  for (let r = 0; r < GRID; r++) for (let c = 0, line = 0; c < GRID; c++) {
    for (let k = start[r * GRID + c]; k < start[r * GRID + c + 1]; k++) if (paint[k] !== HIDDEN) line++;
    sums[(r + 1) * wide + c + 1] = sums[r * wide + c + 1] + line;
  }
  return sums;
}

function countShown(left, bottom, right, top) {
  if (left > right || bottom > top) return 0;
  const { sums, start, px, py, paint } = points, wide = GRID + 1;
  const [c0, c1, r0, r1] = [left, right, bottom, top].map((value) => value >> SHIFT);
  // Cells from `a` to `b` and from `d` to `e`, without these ends, are inside.
  const after = (value) => (value + 255) >> SHIFT, [a, d] = [after(left), after(bottom)], [b, e] = [(right + 1) >> SHIFT, (top + 1) >> SHIFT];
  let number = a < b && d < e ? sums[e * wide + b] - sums[d * wide + b] - sums[e * wide + a] + sums[d * wide + a] : 0;
  const some = (from, to) => {
    for (let k = from; k < to; k++)
      if (paint[k] !== HIDDEN && px[k] >= left && px[k] <= right && py[k] >= bottom && py[k] <= top) number++;
  };
  for (let r = r0; r <= r1; r++) {
    const at = r * GRID;
    if (r < d || r >= e || a >= b) some(start[at + c0], start[at + c1 + 1]);
    else { some(start[at + c0], start[at + a]); some(start[at + b], start[at + c1 + 1]); }
  }
  return number;
}

function roughCount(left, top, right, bottom) {
  const { sums, offsets, scales } = points, wide = GRID + 1, [x0, y0] = unitsAt(left, bottom), [x1, y1] = unitsAt(right, top);
  const cell = (value, k) => Math.min(GRID, Math.max(0, (value - offsets[k]) / scales[k] / 256));
  const sumTo = (x, y) => {
    const c = Math.min(GRID - 1, Math.floor(x)), r = Math.min(GRID - 1, Math.floor(y)), at = r * wide + c, u = x - c, v = y - r;
    return (1 - v) * ((1 - u) * sums[at] + u * sums[at + 1]) + v * ((1 - u) * sums[at + wide] + u * sums[at + wide + 1]);
  };
  const [a, b, d, e] = [cell(x0, 0), cell(x1, 0), cell(y0, 1), cell(y1, 1)];
  return sumTo(b, e) - sumTo(a, e) - sumTo(b, d) + sumTo(a, d);
}

// Numbers of shown images beyond each edge; those beyond a corner are to the left or right.
function countsOutside() {
  const { offsets, scales } = points, [x0, y0] = unitsAt(0, view.height), [x1, y1] = unitsAt(view.width, 0);
  const stored = (value, k, round) => Math.min(LAST + 1, Math.max(-1, round((value - offsets[k]) / scales[k])));
  const left = Math.max(0, stored(x0, 0, Math.ceil)), right = Math.min(LAST, stored(x1, 0, Math.floor));
  const bottom = Math.max(0, stored(y0, 1, Math.ceil)), top = Math.min(LAST, stored(y1, 1, Math.floor));
  return { left: countShown(0, 0, Math.min(LAST, left - 1), LAST), right: countShown(Math.max(0, right + 1), 0, LAST, LAST),
    above: countShown(left, Math.max(0, top + 1), right, LAST), below: countShown(left, 0, right, Math.min(LAST, bottom - 1)) };
}

function showEdges() {
  if (!points.paint) return;
  const counts = countsOutside();
  for (const [edge, arrow] of Object.entries(EDGES)) {
    const element = $(`edge-${edge}`), number = counts[edge], where = edge === "left" || edge === "right" ? `to the ${edge} of` : edge;
    element.hidden = number === 0;
    element.textContent = edge === "right" ? `${number.toLocaleString("en")} ${arrow}` : `${arrow} ${number.toLocaleString("en")}`;
    element.title = `${formatCount(number)} ${where} this part of the map: show the whole map`;
    element.setAttribute("aria-label", element.title);
  }
}

function addEdges() {
  $("plot").append(...Object.keys(EDGES).map((edge) =>
    button("", () => { fit(); $("plot").focus(); }, { id: `edge-${edge}`, className: `edge ${edge}`, hidden: true })));
}
