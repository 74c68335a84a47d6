// The card of the image under the pointer, and the image that was opened.
//
// openImage(row, takeFocus)  shows an image, its neighbours and all its columns
// closeImage()
// onOpen(handler)            calls handler(record) after an image was opened; the result,
//                            if any, is an element that is shown below the neighbours

const CARD_COLUMNS = 2, openHandlers = [];
const onOpen = (handler) => openHandlers.push(handler);

// ---- the card ----

function rowAt(x, y) {
  const row = $("draw").checked ? pictureAt(x, y) : labelAt(x, y);
  return row >= 0 || $("draw").checked ? { row, number: 1 } : nearestRow(x, y, Math.max(4, (view.side ?? 2) / view.ratio / 2 + 2));
}

function hover(x, y) {
  const { row, number } = rowAt(x, y);
  state.hovered = row;
  $("plot").style.cursor = row >= 0 ? "pointer" : "";
  if (row < 0) $("card").hidden = true;
  else if ($("card").hidden || $("card").dataset.row !== String(row)) fillCard(row, number, x, y);
  else placeCard(x, y);
}

function leave() {
  state.hovered = -1;
  $("card").hidden = true;
}

async function fillCard(row, number, x, y) {
  const { cell, title } = await loadRow(row), card = $("card");
  if (state.hovered !== row) return;
  const labels = page.columns.filter((c) => c.listed && c.kind !== "text").slice(0, CARD_COLUMNS).map((c) => c.name);
  const names = [...new Set([state.colour, "cluster", ...labels, "outlier_rank"])];
  fill(card, [make("p", { className: "title", textContent: title }), picture(row, 96),
    make("div", {}, [facts(names.map((n) => [n, cell(n)])),
      number > 1 ? make("span", { className: "note", textContent: `and ${(number - 1).toLocaleString("en")} more at this point` }) : null])]);
  card.dataset.row = row;
  card.hidden = false;
  placeCard(x, y);
}

function placeCard(x, y) {
  const card = $("card"), isRight = x + 18 + card.offsetWidth <= view.width;
  const left = isRight ? x + 18 : x - 18 - card.offsetWidth, top = Math.min(Math.max(0, y - 30), view.height - card.offsetHeight);
  Object.assign(card.style, { left: `${Math.max(0, left)}px`, top: `${Math.max(0, top)}px` });
}

// ---- the opened image ----

async function openImage(row, takeFocus = false, isBack = false) {
  if (!isBack && state.row >= 0 && state.row !== row) state.trail.push(state.row);
  Object.assign(state, { row, neighbours: [] });
  const [px, py] = pixelOf(row), isVisible = px > 0 && py > 0 && px < view.width && py < view.height;
  if (isPlaced(row) && !isVisible) moveTo(...placeOf(row), view.scale);
  redraw();
  const record = await loadRow(row);
  if (state.row !== row) return;
  state.neighbours = record.neighbours.map((n) => n.row);
  showImage(record);
  redraw();
  if (takeFocus) ($("image").querySelector(".strip button") ?? $("image")).focus({ preventScroll: true });
  $("side").scrollTop = 0;
  $("image").scrollIntoView({ block: "nearest" });
}

function closeImage() {
  const hadFocus = $("image").contains(document.activeElement);
  Object.assign(state, { row: -1, trail: [], neighbours: [] });
  $("image").hidden = true;
  redraw();
  if (hadFocus) $("plot").focus();
}

function skyLinks({ cell }) {
  const number = (name) => cell(name) !== "" ? Number(cell(name)) : NaN;
  const [ra, dec] = [number("ra_deg"), number("dec_deg")];
  if (!Number.isFinite(ra + dec)) return null;
  const field = number("pixel_scale_arcsec") * Math.max(number("width"), number("height")) / 3600;
  const fov = Number.isFinite(field) && field > 0 ? Math.min(60, 2 * field) : 0.1;
  const place = encodeURIComponent(`${ra} ${dec}`), radius = Math.min(60, Math.max(0.5, 30 * fov)).toFixed(2);
  const link = (textContent, href) => make("a", { textContent, href, target: "_blank", rel: "noopener noreferrer" });
  return make("div", { className: "row" }, [
    link("Aladin Lite", `https://aladin.cds.unistra.fr/AladinLite/?target=${place}&fov=${fov.toPrecision(3)}`),
    link("SIMBAD", `https://simbad.cds.unistra.fr/simbad/sim-coo?Coord=${place}&CooFrame=ICRS&Radius=${radius}&Radius.unit=arcmin`)]);
}

function showImage(record) {
  const { row, title, cell, neighbours, duplicates } = record, same = new Set(duplicates), large = picture(row, 256);
  large.className = "picture";
  large.style.width = large.style.height = "";
  large.setAttribute("role", "img");
  large.setAttribute("aria-label", title);
  const back = button("Back", () => openImage(state.trail.pop(), true, true), { disabled: !state.trail.length });
  const listButton = button("", () => setList(isInList(row) ? state.list.filter((r) => r !== row) : [...state.list, row]),
    { id: "listed" });
  fill($("image"), [
    button("Close", closeImage, { className: "close", title: "Esc" }),
    make("h2", { className: "title", textContent: title }), large,
    make("div", { className: "row" }, [back, listButton,
      button("Add neighbours", () => setList([...state.list, row, ...state.neighbours]), { disabled: !neighbours.length })]),
    skyLinks(record),
    neighbours.length ? make("h3", { textContent: "Nearest neighbours in the embedding, with distances" }) : null,
    strip(neighbours.map((n) => n.row), 72, "Nearest images", (one, k) =>
      ({ words: neighbours[k].distance.toPrecision(3), same: same.has(one) })),
    same.size ? make("p", { className: "note", textContent: `${formatCount(same.size, "near-duplicate")} (orange frame).` }) : null,
    ...openHandlers.map((handler) => handler(record)),
    facts([...page.columns.map((c) => c.name), "x", "y"].map((name) => [name, cell(name)]))]);
  $("image").hidden = false;
  updateListButton();
}

function updateListButton() {
  const element = $("listed");
  if (element) element.textContent = isInList(state.row) ? "Remove from list" : "Add to list";
}
