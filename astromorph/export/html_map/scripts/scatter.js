// The points of the map, drawn pixel by pixel, and the view on them.
//
// The points are sorted into the cells of a grid: drawing, hovering and selecting only
// read the cells that they need. Within a cell the order is mixed, so that no category
// covers the others. At most 3 pixels wide, points are squares; larger ones are
// antialiased markers.
//
// view                         centre (x, y) in the units of the layout, scale in units per
//                              pixel, width and height in pixels
// moveTo(x, y, scale), fit(rows), fitMain(), placeOf(row) -> [x, y] in units, pixelOf(row), unitsAt(px, py)
// setPaint(codes, palette)     Uint8Array of a code per row; { colour, marker } per code
// nearestRow(px, py, radius)   the closest shown image and the number within the radius
// rowsInside(outline)          shown images inside of a polygon of pixels
// Rows of the column `page.new`, if there is one, are drawn larger, with an outline, on top.

const GRID = 256, SHIFT = 8, MISSING = 65535, HIDDEN = 255, PAD = 24;
const MAX_SIZE = 11, MAX_PIXELS = 3e6, OPACITY = 0.88, FAINT = 0.16, MAX_RINGS = 2000, SETTLE = 120;
const TAILS = [[0.05, 2.5], [0.02, 1.4]], MARGIN = 30;
const view = { x: 0, y: 0, scale: 1, width: 1, height: 1, ratio: 1, fitted: null };
const points = { values: null, scales: [1, 1], offsets: [0, 0], order: null, start: null, sums: null,
  px: null, py: null, paint: null, codes: null, palette: [], counts: null, front: null, isNew: null, version: 0 };
let fullScale = 1, mainScale = 1;

// ---- colours of the theme ----

const darkScheme = matchMedia("(prefers-color-scheme: dark)");
let printing = false;
const isDark = () => darkScheme.matches && !printing;
const INK = { true: "#e6edf3", false: "#1b1f24" }, PAPER = { true: "#0d1117", false: "#ffffff" };
const ink = () => INK[isDark()], paper = () => PAPER[isDark()];
// Black and white swap; the ends of the ramp that are faint on the background are left out.
const themed = (colour) => colour === "#000000" && isDark() ? "#ffffff" : colour;
const ramp = () => isDark() ? page.ramp.slice(25) : page.ramp.slice(0, 235);
const channels = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));
const pack = ([r, g, b]) => (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;

// ---- index ----

function gcd(a, b) { return b ? gcd(b, a % b) : a; }

function setLayout(group) {
  const { values } = group, number = page.number, start = new Int32Array(GRID * GRID + 1);
  const cellOf = (row) => (values[2 * row + 1] >> SHIFT) * GRID + (values[2 * row] >> SHIFT);
  for (let row = 0; row < number; row++) if (values[2 * row] !== MISSING) start[cellOf(row) + 1]++;
  for (let k = 0; k < GRID * GRID; k++) start[k + 1] += start[k];
  const next = start.slice(), total = start[GRID * GRID], order = new Int32Array(total);
  const px = new Uint16Array(total), py = new Uint16Array(total);
  let stride = Math.max(1, Math.floor(0.618 * number));
  while (gcd(stride, number) !== 1) stride++;
  for (let k = 0, row = 0; k < number; k++, row = (row + stride) % number) {
    if (values[2 * row] === MISSING) continue;
    const at = next[cellOf(row)]++;
    order[at] = row;
    px[at] = values[2 * row];
    py[at] = values[2 * row + 1];
  }
  Object.assign(points, group, { order, start, px, py });
  updatePaint();
}

const isPlaced = (row) => points.values[2 * row] !== MISSING;
const placeOf = (row) => [0, 1].map((k) => points.offsets[k] + points.scales[k] * points.values[2 * row + k]);

// Calls work(from, to) for runs of points in the cells that touch a rectangle of pixels.
function inCells(left, top, right, bottom, work) {
  const [x0, y0] = unitsAt(left, bottom), [x1, y1] = unitsAt(right, top), { offsets, scales, start } = points;
  const cell = (value, k) => Math.min(GRID - 1, Math.max(0, Math.floor((value - offsets[k]) / scales[k] / 256)));
  const [c0, c1, r0, r1] = [cell(x0, 0), cell(x1, 0), cell(y0, 1), cell(y1, 1)];
  for (let r = r0; r <= r1; r++) work(start[r * GRID + c0], start[r * GRID + c1 + 1]);
}

// ---- the view ----

const unitsAt = (px, py) => [view.x + (px - view.width / 2) * view.scale, view.y - (py - view.height / 2) * view.scale];

const pixelOfPlace = ([x, y]) => [(x - view.x) / view.scale + view.width / 2, (view.y - y) / view.scale + view.height / 2];
const pixelOf = (row) => pixelOfPlace(placeOf(row));

// A stored position p is drawn at (ax * p + bx, ay * p + by).
function pixelFactors(ratio = 1, margin = 0) {
  const { offsets, scales } = points, { x, y, scale, width, height } = view;
  return { ax: scales[0] / scale * ratio, bx: ((offsets[0] - x) / scale + width / 2) * ratio + margin,
    ay: -scales[1] / scale * ratio, by: ((y - offsets[1]) / scale + height / 2) * ratio + margin };
}

// `fitted` is the function that a change of the window calls again.
function moveTo(x, y, scale, fitted = null) {
  const finest = Math.min(...points.scales) / 16;
  Object.assign(view, { x, y, scale: Math.min(8 * fullScale, Math.max(finest, scale)), fitted });
  redraw();
}

// Boxes are [left, bottom, right, top] in stored positions.
const boxes = { values: null, whole: null, main: null };
const wholeBox = () => findBoxes().whole, mainBox = () => findBoxes().main;

// The box of all points, and that of the main part: without the few points of the tails if
// they would make the map much smaller.
function findBoxes() {
  if (boxes.values === points.values) return boxes;
  const ends = [points.px, points.py].map(tails), total = points.order.length;
  const boxOf = (share) => total ? [ends[0](share)[0], ends[1](share)[0], ends[0](share)[1], ends[1](share)[1]] : [0, 0, 1, 1];
  const whole = boxOf(0);
  let main = whole;
  for (const [share, gain] of TAILS) {
    const box = boxOf(share);
    if (main === whole && scaleFor(whole) >= gain * scaleFor(box)) main = box;
  }
  return Object.assign(boxes, { values: points.values, whole, main });
}

// A function from a share to the range between the quantiles with this share on each side,
// which is a quarter wider, but not wider than that of all positions.
function tails(positions) {
  const counts = new Uint32Array(MISSING + 1), total = positions.length;
  for (let k = 0; k < total; k++) counts[positions[k]]++;
  const end = (share, from, step) => {
    let value = from;
    for (let sum = counts[value]; sum <= share * total && value + step >= 0 && value + step <= MISSING; sum += counts[value]) value += step;
    return value;
  };
  const first = end(0, 0, 1), last = end(0, MISSING, -1);
  return (share) => {
    const low = end(share, 0, 1), high = end(share, MISSING, -1), more = share && 0.25 * (high - low);
    return low < high ? [Math.max(first, low - more), Math.min(last, high + more)] : [first, last];
  };
}

function scaleFor([left, bottom, right, top]) {
  const { scales } = points, wide = Math.max(50, view.width - 2 * MARGIN), tall = Math.max(50, view.height - 2 * MARGIN);
  return Math.max((right - left) * scales[0] / wide, (top - bottom) * scales[1] / tall, 1e-6 * Math.max(...scales));
}

function fitBox(box, scale, fitted) {
  const middle = (k) => points.offsets[k] + points.scales[k] * (box[k] + box[k + 2]) / 2;
  moveTo(middle(0), middle(1), scale, fitted);
}

// The main part of the map.
function fitMain() {
  [mainScale, fullScale] = [scaleFor(mainBox()), scaleFor(wholeBox())];
  $("main-part").hidden = mainBox() === wholeBox();
  fitBox(mainBox(), mainScale, fitMain);
}

// Zoom to some rows, or to all, with the same scale on both axes.
function fit(rows = null) {
  if (!rows) { fitBox(wholeBox(), scaleFor(wholeBox()), fit); return; }
  const { values } = points, box = [Infinity, Infinity, -Infinity, -Infinity];
  for (const row of rows) if (isPlaced(row)) for (let k = 0; k < 2; k++) {
    box[k] = Math.min(box[k], values[2 * row + k]);
    box[k + 2] = Math.max(box[k + 2], values[2 * row + k]);
  }
  if (box[0] <= box[2]) fitBox(box, Math.max(scaleFor(box), 0.12 * mainScale), null);
}

function resize() {
  const { clientWidth: width, clientHeight: height } = $("plot"), ratio = window.devicePixelRatio || 1;
  if (!width || !height) return;
  Object.assign(view, { width, height, ratio });
  for (const id of ["points", "pictures", "marks"])
    Object.assign($(id), { width: Math.round(width * ratio), height: Math.round(height * ratio) });
  if (points.order) boxes.values = null;
  view.fitted ? view.fitted() : redraw();
}

// ---- paint ----

function setPaint(codes, palette) {
  Object.assign(points, { codes, palette });
  updatePaint();
}

// In the order of drawing: the code of each point, and whether it is in the list.
function updatePaint() {
  const { order, codes } = points;
  if (!order || !codes) return;
  const paint = new Uint8Array(order.length), front = state.list.length ? new Uint8Array(order.length) : null;
  const counts = new Int32Array(HIDDEN + 1);
  for (let k = 0; k < order.length; k++) counts[paint[k] = state.shown[order[k]] ? codes[order[k]] : HIDDEN]++;
  if (front) for (let k = 0; k < order.length; k++) front[k] = isInList(order[k]) ? 1 : 0;
  Object.assign(points, { paint, front, counts, sums: sumCells(points.start, paint), version: points.version + 1 });
  redraw();
}

const SHAPES = {
  circle: (c, r) => c.arc(0, 0, r, 0, 7),
  triangle: (c, r) => { c.moveTo(0, -1.25 * r); c.lineTo(1.15 * r, 0.75 * r); c.lineTo(-1.15 * r, 0.75 * r); },
  square: (c, r) => c.rect(-0.89 * r, -0.89 * r, 1.78 * r, 1.78 * r),
  diamond: (c, r) => { c.moveTo(0, -1.3 * r); c.lineTo(1.1 * r, 0); c.lineTo(0, 1.3 * r); c.lineTo(-1.1 * r, 0); },
};

// The covered pixels of a marker: offsets from its centre, and opacities from 0 to 256.
const sprite = memoise((key) => {
  const [shape, size] = key.split(" "), half = Math.ceil(0.66 * size) + 1, side = 2 * half + 1;
  const context = make("canvas", { width: side, height: side }).getContext("2d");
  context.translate(half + 0.5, half + 0.5);
  context.beginPath();
  SHAPES[shape](context, size / 2);
  context.fill();
  const { data } = context.getImageData(0, 0, side, side), pixels = [];
  for (let k = 0; k < side * side; k++) if (data[4 * k + 3])
    pixels.push([k % side - half, Math.floor(k / side) - half, Math.round(data[4 * k + 3] / 255 * OPACITY * 256)]);
  return pixels;
});

let buffer = null;

// The width of a point in pixels of the screen: as in `point_size` of astromorph for the
// number of points that would be visible if they were evenly spread.
function pointSize(visible) {
  const wanted = Math.min(MAX_SIZE, Math.max(2, page.size * Math.sqrt(mainScale / view.scale)));
  const most = Math.sqrt(MAX_PIXELS / Math.max(1, visible)), size = Math.min(view.ratio * wanted, Math.max(2, most));
  return Math.round(size > 3 ? Math.max(3, Math.min(size, 0.7 * most)) : size);  // markers take more time than squares
}

function drawPoints() {
  const canvas = $("points"), { width, height } = canvas, { ratio } = view, { paint, front, px, py, palette } = points;
  if (!paint) return;
  const wide = width + 2 * PAD, size = wide * (height + 2 * PAD), background = channels(paper());
  if (buffer?.width !== wide || buffer.data.length !== 4 * size) buffer = new ImageData(wide, height + 2 * PAD);
  const pixels = new Uint32Array(buffer.data.buffer), runs = [];
  pixels.fill(pack(background));
  inCells(-PAD, -PAD, view.width + PAD, view.height + PAD, (from, to) => runs.push(from, to));
  let visible = 0;
  for (let k = 0; k < runs.length; k += 2) visible += runs[k + 1] - runs[k];
  const side = pointSize(visible), half = side >> 1, edge = PAD - 1;
  const { ax, ay, bx, by } = pixelFactors(ratio, PAD);
  const strong = Uint32Array.from(palette, ({ colour }) => pack(channels(colour)));
  const faint = Uint32Array.from(palette, ({ colour }) => pack(channels(colour).map((v, k) =>
    Math.round(FAINT * v + (1 - FAINT) * background[k]))));
  const sprites = side > 3 ? palette.map(({ marker }) => {
    const found = sprite(`${page.markers[marker]} ${side}`);
    return { steps: Int32Array.from(found, ([x, y]) => y * wide + x), alphas: Uint16Array.from(found, (p) => p[2]) };
  }) : null;
  const square = new Int32Array(side * side).map((_, k) => (Math.floor(k / side) - half) * wide + k % side - half);

  const draw = (colours, wanted) => {
    for (let run = 0; run < runs.length; run += 2) for (let k = runs[run]; k < runs[run + 1]; k++) {
      const code = paint[k];
      if (code === HIDDEN || (wanted >= 0 && front[k] !== wanted)) continue;
      const x = (px[k] * ax + bx) | 0, y = (py[k] * ay + by) | 0;
      if (x < PAD - edge || y < PAD - edge || x >= wide - PAD || y >= height + PAD) continue;
      const colour = colours[code], at = y * wide + x;
      if (side === 2) {  // most points of a large map
        pixels[at - wide - 1] = pixels[at - wide] = pixels[at - 1] = pixels[at] = colour;
        continue;
      }
      if (!sprites) {
        for (let j = 0; j < square.length; j++) pixels[at + square[j]] = colour;
        continue;
      }
      const { steps, alphas } = sprites[code], redBlue = colour & 0xff00ff, green = (colour >>> 8) & 0xff;
      for (let j = 0; j < steps.length; j++) {
        const to = at + steps[j], alpha = alphas[j], rest = 256 - alpha, old = pixels[to];
        pixels[to] = 0xff000000 |
          (((Math.imul(redBlue, alpha) + Math.imul(old & 0xff00ff, rest)) >>> 8) & 0xff00ff) |
          ((Math.imul(green, alpha) + Math.imul((old >>> 8) & 0xff, rest)) & 0xff00);
      }
    }
  };
  if (front) { draw(faint, 0); draw(strong, 1); } else draw(strong, -1);
  canvas.getContext("2d").putImageData(buffer, -PAD, -PAD);
  Object.assign(view, { side, visible });
}

// ---- marks above the points ----

function drawMarks() {
  const canvas = $("marks"), context = canvas.getContext("2d"), { ratio, width, height } = view;
  const size = (view.side ?? 2) / ratio, isInside = ([x, y]) => x > -20 && y > -20 && x < width + 20 && y < height + 20;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  // Lines have an edge in the colour of the background, to be seen on any points.
  const stroke = (line) => {
    Object.assign(context, { strokeStyle: paper(), lineWidth: line + 1.2 });
    context.stroke();
    Object.assign(context, { strokeStyle: ink(), lineWidth: line });
    context.stroke();
  };
  const ring = ([x, y], diameter, line) => {
    context.beginPath();
    context.arc(x, y, diameter / 2, 0, 7);
    stroke(line);
  };
  if (points.isNew) drawNew(context, size + 4, isInside);
  placesInside(state.found).forEach((at) => ring(at, size + 6, 2));
  if (state.row >= 0 && isPlaced(state.row)) {
    const here = pixelOf(state.row), near = state.neighbours.filter(isPlaced).map(pixelOf);
    context.globalAlpha = 0.6;
    near.forEach((at) => { context.beginPath(); context.moveTo(...here); context.lineTo(...at); stroke(1); });
    context.globalAlpha = 1;
    near.forEach((at) => ring(at, size + 5, 1.5));
    ring(here, size + 11, 3);
  }
  drawLabels(context);
  if (state.scale) drawColourBar(context);
  if (state.outline) {
    context.fillStyle = "rgb(9 105 218 / 0.15)";
    context.beginPath();
    state.outline.forEach((at) => context.lineTo(...at));
    context.closePath(); context.fill();
    stroke(1.5);
  }
}

// Where some rows are in the window: at most `MAX_RINGS` of them.
function placesInside(rows) {
  const { ax, ay, bx, by } = pixelFactors(), { values } = points, found = [];
  for (let k = 0; k < rows.length && found.length < MAX_RINGS; k++) {
    const x = values[2 * rows[k]] * ax + bx, y = values[2 * rows[k] + 1] * ay + by;
    if (x > 0 && y > 0 && x < view.width && y < view.height && isPlaced(rows[k])) found.push([x, y]);
  }
  return found;
}

function drawNew(context, size, isInside) {
  for (const row of points.isNew) {
    if (!state.shown[row] || !isPlaced(row)) continue;
    const at = pixelOf(row), { colour, marker } = points.palette[points.codes[row]];
    if (!isInside(at)) continue;
    context.save();
    context.translate(...at);
    context.beginPath();
    SHAPES[page.markers[marker]](context, size / 2 + 2);
    context.closePath();
    Object.assign(context, { fillStyle: colour, strokeStyle: ink(), lineWidth: 2 });
    context.fill(); context.stroke();
    context.restore();
  }
}

function drawColourBar(context) {
  const colours = ramp(), ticks = ticksOf(state.scale), wide = 12, tall = Math.min(240, view.height - 80);
  const left = view.width - wide - 12, top = 42, unit = unitOf(state.scale.name);
  context.font = "12px system-ui, sans-serif";
  const title = shortened(state.scale.name, 24) + (unit ? ` (${unit})` : "");
  const widest = Math.max(...ticks.map(({ text }) => context.measureText(text).width + wide + 9), context.measureText(title).width);
  context.fillStyle = paper();
  context.globalAlpha = 0.85;
  context.fillRect(view.width - widest - 20, 8, widest + 16, tall + 48);
  context.globalAlpha = 1;
  const filling = context.createLinearGradient(0, top + tall, 0, top);
  colours.forEach((colour, k) => filling.addColorStop(k / (colours.length - 1), colour));
  context.fillStyle = filling;
  context.fillRect(left, top, wide, tall);
  Object.assign(context, { fillStyle: ink(), font: "12px system-ui, sans-serif", textAlign: "right", textBaseline: "middle" });
  context.fillText(title, left + wide, top - 18);
  for (const { share, text } of ticks) {
    const y = top + tall * (1 - share);
    context.fillText(text, left - 6, y);
    context.fillRect(left - 4, y - 0.5, 4, 1);
  }
}

function redraw() { onNextFrame(drawAll); }

let settling = 0;

function drawAll() {
  drawPoints();
  drawPictures(true);
  drawMarks();
  clearTimeout(settling);
  settling = setTimeout(settle, SETTLE);
}

// What is not needed while the map moves.
function settle() {
  showEdges();
  settlePictures();
  settleLabels();
}

async function savePicture() {
  drawAll();
  settle();
  await new Promise(requestAnimationFrame);  // small pictures are drawn a moment later
  const whole = make("canvas", { width: $("points").width, height: $("points").height }), context = whole.getContext("2d");
  for (const id of ["points", "pictures", "marks"]) if (!$(id).hidden) context.drawImage($(id), 0, 0);
  whole.toBlob((blob) => saveFile("map.png", blob, "image/png"));
}

// ---- images at a place ----

function nearestRow(px, py, radius = Infinity) {
  const [x, y] = unitsAt(px, py), { offsets, scales, order, paint } = points, limit = (radius * view.scale) ** 2;
  let best = -1, least = Infinity, number = 0;
  const search = (from, to) => {
    for (let k = from; k < to; k++) {
      if (paint[k] === HIDDEN) continue;
      const far = (offsets[0] + scales[0] * points.px[k] - x) ** 2 + (offsets[1] + scales[1] * points.py[k] - y) ** 2;
      if (far > limit) continue;
      number++;
      if (far < least || (far === least && order[k] < best)) [best, least] = [order[k], far];
    }
  };
  radius === Infinity ? search(0, order.length) : inCells(px - radius, py - radius, px + radius, py + radius, search);
  return { row: best, number };
}

function rowsInside(outline) {
  const context = make("canvas", { width: Math.ceil(view.width), height: Math.ceil(view.height) }).getContext("2d");
  context.beginPath();
  outline.forEach((at) => context.lineTo(...at));
  context.closePath();
  context.fill();
  const { width, height } = context.canvas, { data } = context.getImageData(0, 0, width, height), rows = [];
  const xs = outline.map((at) => at[0]), ys = outline.map((at) => at[1]), { ax, ay, bx, by } = pixelFactors();
  inCells(Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys), (from, to) => {
    for (let k = from; k < to; k++) {
      if (points.paint[k] === HIDDEN) continue;
      const x = Math.floor(points.px[k] * ax + bx), y = Math.floor(points.py[k] * ay + by);
      if (x >= 0 && y >= 0 && x < width && y < height && data[4 * (y * width + x) + 3] > 127) rows.push(points.order[k]);
    }
  });
  return rows;
}
