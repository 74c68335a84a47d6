// Pictures and names of the groups of a legend, in the legend and on the map.
//
// typicalRows(name)     for each entry of a legend: the row of its picture, or -1: the
//                       representative of a cluster from the analysis, else the image in
//                       the densest part of the group on the map
// drawLabels(context)   draws them beside their groups, so that they cover few points and
//                       not each other
// labelAt(px, py)       the row of the picture on the map at a pixel, or -1
// settleLabels()        finds new places after the map was moved or zoomed: until then,
//                       labels follow their groups

const DENSITY_CELLS = 32, MAX_NAME = 22, RINGS = [0.75, 1, 1.35, 1.8, 2.4, 3.2], DIRECTIONS = 16;
const COVERING = 40, FAR = 260, CROSSING = 0.8, GAP = 5;
let placement = null;

// ---- the densest part of each group ----

const densities = new Map();  // of the columns, in the layout that is shown

// For each entry: its densest place, in stored positions, and the row nearest to it.
function densestPlaces(name) {
  const known = densities.get(name);
  if (known?.values === points.values) return known.places;
  const { entries, ofRow } = categories(name), { order, px, py } = points, side = DENSITY_CELLS, number = entries.length;
  const [left, bottom, right, top] = mainBox(), counts = new Int32Array(number * side * side), cells = new Uint16Array(order.length);
  const fx = side / Math.max(1, right - left), fy = side / Math.max(1, top - bottom), cell = (value) => Math.min(side - 1, Math.max(0, value | 0));
  for (let k = 0; k < order.length; k++) {
    cells[k] = cell((py[k] - bottom) * fy) * side + cell((px[k] - left) * fx);
    counts[ofRow[order[k]] * side * side + cells[k]]++;
  }
  const best = entries.map((_, entry) => densestCell(counts.subarray(entry * side * side, (entry + 1) * side * side), side));
  const sums = new Float64Array(3 * number), isNear = (one, other) =>
    Math.abs((one >> 5) - (other >> 5)) <= 1 && Math.abs((one & 31) - (other & 31)) <= 1;
  for (let k = 0; k < order.length; k++) {
    const entry = ofRow[order[k]];
    if (!isNear(cells[k], best[entry])) continue;
    sums[3 * entry] += px[k]; sums[3 * entry + 1] += py[k]; sums[3 * entry + 2]++;
  }
  const places = entries.map((_, entry) => ({ row: -1, x: sums[3 * entry] / sums[3 * entry + 2], y: sums[3 * entry + 1] / sums[3 * entry + 2] }));
  const least = new Float64Array(number).fill(Infinity);
  for (let k = 0; k < order.length; k++) {
    const entry = ofRow[order[k]], place = places[entry], far = (px[k] - place.x) ** 2 + (py[k] - place.y) ** 2;
    if (far < least[entry]) [least[entry], place.row] = [far, order[k]];
  }
  densities.set(name, { values: points.values, places });
  return places;
}

// The cell that has most images together with the eight cells around it.
function densestCell(counts, side) {
  let best = 0, most = -1;
  for (let r = 0; r < side; r++) for (let c = 0; c < side; c++) {
    let sum = counts[r * side + c] / 2;
    for (let j = Math.max(0, r - 1); j <= Math.min(side - 1, r + 1); j++)
      for (let i = Math.max(0, c - 1); i <= Math.min(side - 1, c + 1); i++) sum += counts[j * side + i];
    if (sum > most) [best, most] = [r * side + c, sum];
  }
  return best;
}

const typicalRows = memoise((name) => {
  const { entries } = categories(name), known = page.typical[name];
  if (known && entries.every((entry) => entry.isGray || known[entry.name] !== undefined))
    return entries.map((entry) => entry.isGray ? -1 : known[entry.name]);
  const places = densestPlaces(name);
  return entries.map((entry, k) => entry.isGray ? -1 : known?.[entry.name] ?? places[k].row);
});

// ---- places on the map ----

const nameOfEntry = (name, entry) => page.clusterings.includes(name) ? `cluster ${entry.name}` : entry.name;

// They wait until the map can be used.
const labelsAreOn = () => document.body.dataset.ready && $("labels").checked && !$("draw").checked && !state.scale && points.paint !== null;
const labelPicture = memoise((key) => picture(...key.split(" ").map(Number), () => onNextFrame(drawMarks)));
const labelFont = "600 12px system-ui, sans-serif";

function sideOfLabels(number) {
  const area = Math.min(view.width, view.height), side = area > 700 ? 72 : area > 440 ? 56 : 40;
  return number > 14 ? Math.min(side, 48) : side;
}

function placeLabels(context) {
  const name = state.painted, { entries } = categories(name), rows = typicalRows(name), places = densestPlaces(name);
  const side = sideOfLabels(entries.length), { ax, ay, bx, by } = pixelFactors(), placed = [];
  const total = Math.max(1, roughCount(0, 0, view.width, view.height));
  context.font = labelFont;
  const blocked = [...$("plot").querySelectorAll(".edge:not([hidden])")].map((e) =>
    ({ left: e.offsetLeft, top: e.offsetTop, right: e.offsetLeft + e.offsetWidth, bottom: e.offsetTop + e.offsetHeight }));
  entries.forEach((entry, k) => {
    const at = [places[k].x * ax + bx, places[k].y * ay + by];
    if (rows[k] < 0 || !points.counts[k] || !(at[0] > 0 && at[1] > 0 && at[0] < view.width && at[1] < view.height)) return;
    const text = shortened(nameOfEntry(name, entry), MAX_NAME), wide = Math.max(side + 6, context.measureText(text).width + 10), tall = side + 22;
    let best = null, least = Infinity;
    for (const ring of RINGS) for (let d = 0; d < DIRECTIONS; d++) {
      const angle = 2 * Math.PI * d / DIRECTIONS, dx = ring * wide * Math.cos(angle), dy = ring * tall * Math.sin(angle);
      const left = at[0] + dx - wide / 2, top = at[1] + dy - tall / 2, box = { left, top, right: left + wide, bottom: top + tall };
      let cost = Math.hypot(dx, dy) / FAR;
      if (cost >= least || left < 4 || top < 4 || box.right > view.width - 4 || box.bottom > view.height - 4) continue;
      if (placed.some((one) => overlap(box, one.box)) || blocked.some((one) => overlap(box, one))) continue;
      cost += COVERING * roughCount(left, top, box.right, box.bottom) / total;
      if (cost >= least) continue;
      const middle = [at[0] + dx, at[1] + dy], line = lineBetween(at, middle);
      cost += CROSSING * placed.filter((one) => doCross(at, middle, one.at, one.middle) ||
        line.some((point) => isInside(point, one.box)) || one.line.some((point) => isInside(point, box))).length;
      if (cost < least) [best, least] = [{ k, row: rows[k], text, side, at, box, middle, line }, cost];
    }
    if (best) placed.push(best);
  });
  placement = { key: placementKey(), x: view.x, y: view.y, scale: view.scale, placed };
}

const overlap = (a, b) => a.left < b.right + GAP && b.left < a.right + GAP && a.top < b.bottom + GAP && b.top < a.bottom + GAP;
const lineBetween = (a, b) => Array.from({ length: 9 }, (_, k) => [0, 1].map((i) => a[i] + (b[i] - a[i]) * k / 8));
const isInside = ([x, y], box) => x > box.left && x < box.right && y > box.top && y < box.bottom;

function doCross(a, b, c, d) {
  const turn = (p, q, r) => Math.sign((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]));
  return turn(a, b, c) !== turn(a, b, d) && turn(c, d, a) !== turn(c, d, b);
}

const placementKey = () => [state.painted, view.width, view.height, points.version].join(" ");
const labelsSettled = () => placement.x === view.x && placement.y === view.y && placement.scale === view.scale;

// How far a label is from its place, since the map was moved or zoomed.
function shiftOfLabel({ at }) {
  const { x, y, scale } = placement, middle = [view.width / 2, view.height / 2];
  const zoom = scale / view.scale, moved = [(x - view.x) / view.scale, (view.y - y) / view.scale];
  return [0, 1].map((k) => middle[k] + (at[k] - middle[k]) * zoom + moved[k] - at[k]);
}

function settleLabels() {
  if (!placement || !labelsAreOn() || labelsSettled()) return;
  placement = null;
  drawMarks();
}

function labelAt(px, py) {
  if (!placement || !labelsAreOn()) return -1;
  return placement.placed.find((label) => {
    const [dx, dy] = shiftOfLabel(label);
    return isInside([px - dx, py - dy], label.box);
  })?.row ?? -1;
}

function drawLabels(context) {
  if (!labelsAreOn()) { placement = null; return; }
  if (placement?.key !== placementKey()) placeLabels(context);
  const { placed } = placement, colourOf = (k) => points.palette[k].colour;
  context.save();
  const shifts = placed.map(shiftOfLabel), unshifted = context.getTransform();
  const shiftTo = (place) => { context.setTransform(unshifted); context.translate(...shifts[place]); };
  placed.forEach(({ k, at, middle }, place) => {
    shiftTo(place);
    for (const [colour, line] of [[paper(), 4], [colourOf(k), 2]]) {
      Object.assign(context, { strokeStyle: colour, lineWidth: line });
      context.beginPath();
      context.moveTo(...middle);
      context.lineTo(...at);
      context.stroke();
    }
  });
  Object.assign(context, { font: labelFont, textAlign: "center", textBaseline: "middle" });
  placed.forEach(({ k, row, text, side, box }, place) => {
    shiftTo(place);
    const middle = (box.left + box.right) / 2, left = middle - side / 2, top = box.top + 3;
    context.fillStyle = paper();
    context.globalAlpha = 0.85;
    context.fillRect(box.left, top + side, box.right - box.left, 18);
    context.globalAlpha = 1;
    context.fillStyle = colourOf(k);
    context.fillRect(left - 3, top - 3, side + 6, side + 6);
    context.fillStyle = "#000";
    context.fillRect(left, top, side, side);
    const image = labelPicture(`${row} ${side}`);
    if (image.dataset.drawn) context.drawImage(image, left, top, side, side);
    context.fillStyle = ink();
    context.fillText(text, middle, top + side + 11);
  });
  context.restore();
  $("marks").dataset.labels = placed.length;
}
