// Small pictures: on sheets, which are chunks, in rows of buttons, and on the map.
//
// picture(row, size, done)  a canvas with the picture of an image, drawn when it is loaded;
//                        then `done` is called
// withArrows(group, buttons)  arrow keys move between the buttons of a group
// strip(rows, size, label, decorate)  a row of pictures that open their images: arrow keys
//                        move between them, Enter opens one. decorate(row, place) may
//                        return a caption (`words`), whether the picture has an orange
//                        frame (`same`), and what it does instead of opening (`act`)

const MAX_SHEETS = 96, CELL = 64, TYPICAL = new Map(page.typical_sheet.map((row, place) => [row, place]));

const loadSheet = memoise(async (k) => {
  const image = new Image();
  image.src = `data:image/jpeg;base64,${await loadChunk(`pictures-${k}`)}`;
  await image.decode();
  return image;
}, MAX_SHEETS);

async function drawPicture(context, row, x, y, size, isWanted = () => true) {
  const { side, cell, across } = page.sheets, place = TYPICAL.get(row) ?? row % across ** 2;
  const image = await loadSheet(TYPICAL.has(row) ? "typical" : Math.floor(row / across ** 2));
  if (isWanted()) context.drawImage(image, (place % across) * cell, Math.floor(place / across) * cell, side, side, x, y, size, size);
}

function picture(row, size, done = () => {}) {
  const canvas = document.createElement("canvas"), scale = window.devicePixelRatio || 1;
  canvas.width = canvas.height = Math.round(size * scale);
  canvas.style.width = canvas.style.height = `${size}px`;
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  drawPicture(context, row, 0, 0, canvas.width).then(() => { canvas.dataset.drawn = "yes"; done(); });
  return canvas;
}

function strip(rows, size, label, decorate = () => ({})) {
  const buttons = rows.map((row, place) => {
    const { words, same, act } = decorate(row, place);
    const element = make("button", { type: "button", onclick: () => act ? act(row) : openImage(row, true),
      className: same ? "same" : "" },
      [picture(row, size), words ? make("span", { className: "distance", textContent: words }) : null]);
    element.dataset.row = row;
    loadTitle(row).then((title) => {
      element.title = [title, words, same ? "near-duplicate" : ""].filter(Boolean).join(", ");
      element.setAttribute("aria-label", element.title);
    });
    return element;
  });
  const group = make("div", { className: "strip" }, buttons);
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", label);
  return withArrows(group, buttons);
}

function withArrows(group, buttons) {
  buttons.forEach((element, place) => { element.tabIndex = place ? -1 : 0; });
  group.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const at = buttons.indexOf(document.activeElement);
    if (!step || at < 0) return;
    const next = buttons[(at + step + buttons.length) % buttons.length];
    buttons.forEach((b) => { b.tabIndex = b === next ? 0 : -1; });
    next.focus();
    event.preventDefault();
  });
  return group;
}

// ---- pictures on the map: one for each cell of a grid that moves with the map ----

// With more visible images, new pictures are only chosen when the map stands still.
const MAX_CHOSEN_MOVING = 100000;
let drawing = null, shownPictures = [], shownVersion = -1, picturesSettled = true;

function drawPictures(isMoving = false) {
  const canvas = $("pictures"), isOn = $("draw").checked;
  canvas.hidden = !isOn;
  if (!isOn) { drawing = null; shownVersion = -1; return; }
  picturesSettled = !isMoving || view.visible <= MAX_CHOSEN_MOVING || shownVersion !== points.version;
  if (picturesSettled) [shownPictures, shownVersion] = [imagesNearCellCentres(), points.version];
  const context = canvas.getContext("2d"), size = CELL - 6, stamp = drawing = {};
  context.setTransform(view.ratio, 0, 0, view.ratio, 0, 0);
  context.clearRect(0, 0, view.width, view.height);
  shownPictures.forEach(({ row, place }) => {
    const [x, y] = pixelOfPlace(place);
    const left = x - size / 2, top = y - size / 2;
    context.fillStyle = points.palette[points.codes[row]].colour;
    context.fillRect(left - 2, top - 2, size + 4, size + 4);
    // A picture is not drawn if the map has moved while it was loading.
    drawPicture(context, row, left, top, size, () => drawing === stamp);
  });
  canvas.dataset.number = shownPictures.length;
}

function settlePictures() {
  if (!picturesSettled) drawPictures();
}

// The cells of pictures are fixed in the units of the layout.
function pictureCells() {
  const step = CELL * view.scale, [x, y] = unitsAt(0, view.height);
  return { step, left: Math.floor(x / step), bottom: Math.floor(y / step),
    across: Math.ceil(view.width / CELL) + 1, up: Math.ceil(view.height / CELL) + 1 };
}

// For each visible cell with images: the image nearest to its centre.
function imagesNearCellCentres() {
  const { step, left, bottom, across, up } = pictureCells(), { offsets, scales, order, paint } = points;
  const best = new Int32Array(across * up).fill(-1), least = new Float64Array(across * up).fill(Infinity);
  inCells(0, 0, view.width, view.height, (from, to) => {
    for (let k = from; k < to; k++) {
      if (paint[k] === HIDDEN) continue;
      const x = (offsets[0] + scales[0] * points.px[k]) / step - left, y = (offsets[1] + scales[1] * points.py[k]) / step - bottom;
      const column = Math.floor(x), line = Math.floor(y), cell = line * across + column;
      if (column < 0 || line < 0 || column >= across || line >= up) continue;
      const far = (x - column - 0.5) ** 2 + (y - line - 0.5) ** 2;
      if (far < least[cell]) [best[cell], least[cell]] = [order[k], far];
    }
  });
  const chosen = [];
  best.forEach((row, cell) => {
    if (row < 0) return;
    chosen.push({ row, cell, place: [(left + cell % across + 0.5) * step, (bottom + Math.floor(cell / across) + 0.5) * step] });
  });
  return chosen;
}

function pictureAt(px, py) {
  const { step, left, bottom, across } = pictureCells(), [x, y] = unitsAt(px, py);
  const cell = (Math.floor(y / step) - bottom) * across + Math.floor(x / step) - left;
  return shownPictures.find((one) => one.cell === cell)?.row ?? -1;
}
