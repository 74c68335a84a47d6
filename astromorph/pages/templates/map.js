// The interactive parts of the map around Bokeh's plot. Text from headers and lists is
// only inserted as textContent. A row is the index of an image, from 0; columns are
// unpacked when they are first used.
"use strict";

const astromorphMap = (() => {
  const $ = (id) => document.getElementById(id);
  const read = (id) => JSON.parse($(id).textContent);
  const page = read("page");
  const OTHER = "other values", NONE = "(none)";
  const LIST_PAGE = 60, MAX_CACHED_SHEETS = 96, CELL = 64, NARROW = 640;
  const state = {
    colour: "", filters: new Map(), row: -1, trail: [], found: [], list: [],
    shown: new Uint8Array(page.number).fill(1), listLength: LIST_PAGE,
  };
  let plot, models;

  // ---- data ----

  const memoise = (make) => {
    const known = new Map();
    return (key) => known.has(key) ? known.get(key) : known.set(key, make(key)).get(key);
  };

  function unpack({ type, base64 }) {
    const text = atob(base64), bytes = new Uint8Array(text.length);
    for (let k = 0; k < bytes.length; k++) bytes[k] = text.charCodeAt(k);
    const kinds = { float32: Float32Array, float64: Float64Array, int32: Int32Array,
      uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array };
    return new kinds[type](bytes.buffer);
  }

  const column = memoise((name) => {
    const at = page.columns.findIndex((c) => c.name === name);
    const data = read(`column-${at}`);
    if (data.numbers) {
      const numbers = unpack(data.numbers);
      const shortest = numbers instanceof Float32Array ? (v) => Number(v.toPrecision(7)) : (v) => v;
      return { ...page.columns[at], numbers,
        text: (row) => Number.isNaN(numbers[row]) ? "" : String(shortest(numbers[row])) };
    }
    const codes = data.codes ? unpack(data.codes) : null;
    const code = codes ? (row) => codes[row] : (row) => row;
    return { ...page.columns[at], words: data.words, code, text: (row) => data.words[code(row)] };
  });

  const cell = (name, row) => column(name).text(row);
  const fileName = (row) => cell("path", row).replace(/.*\//, "");
  const title = (row) => cell("object", row) || fileName(row);
  const relations = memoise((name) => {
    const all = read("relations");
    return name === "duplicates" ? all.duplicates : unpack(all[name]);
  });

  // The entries of a column's legend: the most frequent values, each with a colour and
  // a marker; then all other values together; then rows without a value.
  const categories = memoise((name) => {
    const { words, code } = column(name);
    const counts = new Array(words.length).fill(0);
    for (let row = 0; row < page.number; row++) counts[code(row)]++;
    const isNone = (k) => words[k] === "" || words[k] === "nan";
    const order = words.map((_, k) => k).filter((k) => !isNone(k)).sort((a, b) => counts[b] - counts[a]);
    const maxEntries = page.colours.length * page.markers.length;
    const entries = order.slice(0, maxEntries).map((k, place) => ({
      name: words[k], codes: [k], place, marker: Math.floor(place / page.colours.length) }));
    const rest = order.slice(maxEntries), empty = words.map((_, k) => k).filter(isNone);
    if (rest.length) entries.push({ name: `${OTHER} (${rest.length})`, codes: rest, place: NaN, marker: 0 });
    if (empty.length) entries.push({ name: NONE, codes: empty, place: NaN, marker: 0 });
    const ofCode = new Uint16Array(words.length);
    entries.forEach((entry, k) => {
      entry.count = entry.codes.reduce((sum, c) => sum + counts[c], 0);
      entry.codes.forEach((c) => { ofCode[c] = k; });
    });
    return { entries, of: (row) => ofCode[code(row)] };
  });

  function limits(numbers) {
    const sorted = Float64Array.from(numbers).filter(Number.isFinite).sort();
    const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
    let [low, high] = [at(0.02), at(0.98)];
    if (!(high > low)) [low, high] = [sorted[0], sorted[sorted.length - 1]];
    return { low, high: high > low ? high : low + 1, min: sorted[0],
      max: sorted[sorted.length - 1], number: sorted.length };
  }

  // ---- small pictures ----

  const sheets = new Map();

  function sheet(k) {
    let image = sheets.get(k);
    if (image) sheets.delete(k);
    else {
      image = new Image();
      image.onerror = () => showProblem("The pictures cannot be loaded: " +
        `the folder ${page.pictures} must be next to this page.`);
      image.src = page.pictures === null
        ? `data:image/jpeg;base64,${$(`sheet-${k}`).textContent}`
        : `${page.pictures.split("/").map(encodeURIComponent).join("/")}/${k}.jpg`;
    }
    sheets.set(k, image);
    if (sheets.size > MAX_CACHED_SHEETS) sheets.delete(sheets.keys().next().value);
    return image;
  }

  function drawPicture(context, row, x, y, size, then) {
    const { side, cell: step, across } = page.sheets;
    const image = sheet(Math.floor(row / across ** 2)), place = row % across ** 2;
    const draw = () => {
      context.drawImage(image, (place % across) * step, Math.floor(place / across) * step,
        side, side, x, y, size, size);
      then?.();
    };
    if (image.complete && image.naturalWidth) draw();
    else image.addEventListener("load", draw, { once: true });
  }

  function picture(row, size) {
    const canvas = document.createElement("canvas"), scale = window.devicePixelRatio || 1;
    canvas.width = canvas.height = Math.round(size * scale);
    canvas.style.width = canvas.style.height = `${size}px`;
    canvas.dataset.row = row;
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    drawPicture(context, row, 0, 0, canvas.width, () => { canvas.dataset.drawn = "yes"; });
    return canvas;
  }

  // ---- building the page ----

  function make(tag, properties = {}, children = []) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children.filter((child) => child != null));
    return element;
  }

  const button = (text, onclick, properties = {}) =>
    make("button", { type: "button", textContent: text, onclick, ...properties });
  const formatCount = (number, what = "image") =>
    `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;

  const fill = (element, children) => element.replaceChildren(...children.filter((child) => child != null));

  function showProblem(text) {
    $("trouble").textContent = text;
    $("trouble").hidden = false;
  }

  function facts(pairs) {
    return make("dl", { className: "facts" }, pairs.filter(([, text]) => text !== "").flatMap(
      ([name, text]) => [make("dt", { textContent: name }), make("dd", { textContent: text })]));
  }

  // A row of small pictures with arrow key navigation. `decorate(row, place)` may return
  // a caption (`words`) and whether the picture is a near-duplicate (`same`).
  function strip(rows, size, label, decorate = () => ({})) {
    const buttons = rows.map((row, place) => {
      const { words, same } = decorate(row, place);
      const spoken = [title(row), words, same ? "near-duplicate" : ""].filter(Boolean).join(", ");
      const element = make("button", { type: "button", title: spoken, onclick: () => open(row, true),
        className: same ? "same" : "", tabIndex: place ? -1 : 0 },
        [picture(row, size), words ? make("span", { className: "distance", textContent: words }) : null]);
      element.setAttribute("aria-label", spoken);
      return element;
    });
    const group = make("div", { className: "strip" }, buttons);
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", label);
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

  // ---- colours, legend, filters ----

  function colourBy(name) {
    state.colour = name;
    const { numbers } = column(name), { mapper, bar } = models, values = new Float32Array(page.number);
    if (numbers) {
      const { low, high } = limits(numbers);
      values.set(numbers);
      mapper.setv({ palette: page.ramp, low, high });
    } else {
      const { entries, of } = categories(name), few = page.colours.length;
      for (let row = 0; row < page.number; row++) values[row] = entries[of(row)].place % few;
      mapper.setv({ palette: page.colours, low: -0.5, high: few - 0.5 });
    }
    bar.visible = Boolean(numbers);
    models.points.data = { ...models.points.data, value: values };
    applyFilters();
    showLegend();
  }

  function colourOf(row) {
    const { palette, low, high } = models.mapper, value = models.points.data.value[row];
    if (Number.isNaN(value)) return page.none;
    const place = Math.floor((value - low) / (high - low) * palette.length);
    const colour = palette[Math.min(palette.length - 1, Math.max(0, place))];
    return typeof colour === "string" ? colour : page.colours[0];
  }

  function applyFilters() {
    const tests = [...state.filters].map(([name, filter]) => {
      const { numbers } = column(name);
      if (numbers) return (row) => numbers[row] >= filter.low && numbers[row] <= filter.high;
      const { of } = categories(name);
      return (row) => !filter.has(of(row));
    });
    const { numbers } = column(state.colour), { entries, of } = numbers ? {} : categories(state.colour);
    const views = models.shown.map(() => []);
    for (let row = 0; row < page.number; row++) {
      const shown = tests.every((test) => test(row));
      state.shown[row] = shown ? 1 : 0;
      if (shown) views[numbers ? 0 : entries[of(row)].marker].push(row);
    }
    models.shown.forEach((filter, k) => {
      const rows = views[k].length === page.number ? null : views[k], old = filter.indices;
      const same = rows === old || (rows && old && rows.length === old.length && rows.every((row, j) => row === old[j]));
      if (!same) filter.indices = rows;
    });
    showCounts();
    onNextFrame(drawPictures);
  }

  function filter(name, value) {
    const isAll = value === null || (value instanceof Set && value.size === 0);
    isAll ? state.filters.delete(name) : state.filters.set(name, value);
    applyFilters();
  }

  function showCounts() {
    const shown = state.shown.reduce((sum, one) => sum + one, 0);
    const others = [...state.filters.keys()].filter((name) => name !== state.colour);
    const text = [shown < page.number ? `${shown.toLocaleString("en")} of ${formatCount(page.number)} shown.` : "",
      others.length ? `Also filtered by ${others.join(", ")}.` : ""].join(" ").trim();
    const line = $("shown");
    if (line) {
      line.textContent = text;
      $("everything").hidden = !text;
    }
  }

  function showLegend() {
    const { numbers } = column(state.colour);
    const clear = button("Show all images", () => { state.filters.clear(); colourBy(state.colour); $("colour").focus(); },
      { id: "everything" });
    $("legend").replaceChildren(
      make("h2", { textContent: state.colour }),
      ...(numbers ? rangeLegend(numbers) : entryLegend()),
      make("p", { className: "note", id: "shown", ariaLive: "polite" }), clear);
    showCounts();
  }

  function entryLegend() {
    const name = state.colour, { entries } = categories(name), signs = ["●", "▲", "■", "◆"];
    const hidden = () => new Set(state.filters.get(name) ?? []);
    const boxes = entries.map((entry, k) => make("input", {
      type: "checkbox", checked: !hidden().has(k), onchange: (event) => {
        const now = hidden();
        event.target.checked ? now.delete(k) : now.add(k);
        filter(name, now);
      } }));
    const setAll = (on) => () => {
      boxes.forEach((box) => { box.checked = on; });
      filter(name, on ? null : new Set(entries.keys()));
    };
    const items = entries.map((entry, k) => {
      const colour = Number.isNaN(entry.place) ? page.none : page.colours[entry.place % page.colours.length];
      const sign = make("span", { textContent: signs[entry.marker], ariaHidden: "true" });
      sign.style.color = colour;
      return make("li", {}, [make("label", {}, [boxes[k], sign,
        make("span", { className: "name", textContent: entry.name }),
        make("span", { className: "count", textContent: entry.count.toLocaleString("en") })])]);
    });
    return [make("div", { className: "row" }, [button("All", setAll(true)), button("None", setAll(false))]),
      make("ul", { className: "entries" }, items)];
  }

  function rangeLegend(numbers) {
    const { min, max, number, low, high } = limits(numbers), name = state.colour;
    const short = (value) => String(Number(value.toPrecision(5)));
    const field = (label) => make("input", { type: "number", step: "any", ariaLabel: `${label} of ${name}` });
    const from = field("Minimum"), to = field("Maximum"), filtered = state.filters.get(name);
    if (filtered?.low > -Infinity) from.value = filtered.low;
    if (filtered?.high < Infinity) to.value = filtered.high;
    [from.placeholder, to.placeholder] = [short(min), short(max)];
    const change = () => {
      const value = (input, otherwise) => input.value === "" ? otherwise : Number(input.value);
      const range = { low: value(from, -Infinity), high: value(to, Infinity) };
      filter(name, from.value === "" && to.value === "" ? null : range);
    };
    from.onchange = to.onchange = change;
    return [
      make("p", { className: "note", textContent: `Values range from ${short(min)} to ${short(max)}. The colour scale ranges from ` +
        `${short(low)} to ${short(high)}; values outside it have the colour of its nearest end.` +
        (number < page.number ? ` ${formatCount(page.number - number)} without a value: gray.` : "") }),
      make("p", { textContent: "Show only values from / to:" }), make("div", { className: "row" }, [from, to])];
  }

  // ---- search ----

  const keys = memoise(() => Array.from({ length: page.number }, (_, row) => ({
    short: [cell("object", row), fileName(row), cell("image_id", row)].join("\n").toLowerCase(),
    path: cell("path", row).toLowerCase() })));

  function find() {
    const query = $("query").value.trim().toLowerCase(), where = query.includes("/") ? "path" : "short";
    state.found = [];
    if (query) keys("all").forEach((key, row) => { if (key[where].includes(query)) state.found.push(row); });
    const away = state.found.filter((row) => !state.shown[row]).length;
    $("said").textContent = !query ? "" : (state.found.length ? `${formatCount(state.found.length, "match").replace(/matchs$/, "matches")}` : "no match") +
      (away ? `, ${away.toLocaleString("en")} hidden by filters` : "");
    $("take").disabled = !state.found.length;
    updateMarkers();
  }

  function showFound() {
    find();
    if (state.found.length) fit(state.found);
    if (state.found.length === 1) open(state.found[0], false);
  }

  // ---- the plot ----

  const places = () => {
    const data = models.points.data, names = $("layout").value === "pca" ? ["pca_1", "pca_2"] : ["x", "y"];
    return names.map((name) => data[name]);
  };

  function updateMarkers() {
    const [xs, ys] = places(), at = (rows) => ({ x: rows.map((r) => xs[r]), y: rows.map((r) => ys[r]) });
    const here = state.row < 0 ? [] : [state.row], near = here.flatMap(neighboursOf).map(({ row }) => row);
    models.found.data = at(state.found);
    models.here.data = at(here);
    models.near.data = at(near);
    models.lines.data = { x0: near.map(() => xs[state.row]), y0: near.map(() => ys[state.row]),
      x1: near.map((r) => xs[r]), y1: near.map((r) => ys[r]) };
  }

  // Zoom to some rows, or to all, with the same scale on both axes.
  function fit(rows = null) {
    const [xs, ys] = places(), ends = [Infinity, -Infinity, Infinity, -Infinity];
    const take = (row) => {
      if (!Number.isFinite(xs[row] + ys[row])) return;
      ends[0] = Math.min(ends[0], xs[row]); ends[1] = Math.max(ends[1], xs[row]);
      ends[2] = Math.min(ends[2], ys[row]); ends[3] = Math.max(ends[3], ys[row]);
    };
    rows ? rows.forEach(take) : xs.forEach((_, row) => take(row));
    if (!(ends[1] >= ends[0])) return;
    const all = rows ? fullSpan : Infinity, minSpan = rows ? 0.12 * all : 1e-6;
    const width = Math.max(ends[1] - ends[0], minSpan), height = Math.max(ends[3] - ends[2], minSpan);
    const { inner_width: w, inner_height: h } = plot;
    const scale = 1.08 * Math.max(width / w, height / h);
    if (!rows) fullSpan = Math.max(width, height);
    moveTo((ends[0] + ends[1]) / 2, (ends[2] + ends[3]) / 2, scale);
  }

  let fullSpan = 1;

  function moveTo(x, y, scale) {
    const w = plot.inner_width * scale / 2, h = plot.inner_height * scale / 2;
    plot.x_range.setv({ start: x - w, end: x + w });
    plot.y_range.setv({ start: y - h, end: y + h });
  }

  const view = () => {
    const { x_range: x, y_range: y } = plot;
    return { x: (x.start + x.end) / 2, y: (y.start + y.end) / 2, scale: (x.end - x.start) / plot.inner_width };
  };

  function keepScale() {
    const { x, y, scale } = view();
    if (Number.isFinite(scale) && scale > 0) moveTo(x, y, scale);
  }

  function nearest(rows, x, y) {
    const [xs, ys] = places(), far = (row) => (xs[row] - x) ** 2 + (ys[row] - y) ** 2;
    return rows.reduce((best, row) => best < 0 || far(row) < far(best) ? row : best, -1);
  }

  function moveByKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target !== $("plot")) return;
    const { x, y, scale } = view(), step = 0.15 * plot.inner_width * scale;
    const moves = {
      ArrowLeft: () => moveTo(x - step, y, scale), ArrowRight: () => moveTo(x + step, y, scale),
      ArrowUp: () => moveTo(x, y + step, scale), ArrowDown: () => moveTo(x, y - step, scale),
      "+": () => moveTo(x, y, scale / 1.4), "=": () => moveTo(x, y, scale / 1.4),
      "-": () => moveTo(x, y, scale * 1.4), 0: () => fit(),
      Enter: () => {
        const rows = [...state.shown.keys()].filter((row) => state.shown[row]);
        if (rows.length) open(nearest(rows, x, y), true);
      },
    };
    if (!moves[event.key]) return;
    moves[event.key]();
    event.preventDefault();
  }

  // ---- pictures instead of points: one for each cell of a grid that moves with the map ----

  const waiting = new Set();

  function onNextFrame(work) {
    if (waiting.has(work)) return;
    waiting.add(work);
    requestAnimationFrame(() => { waiting.delete(work); work(); });
  }

  function frame() {
    const box = models.view.frame.bbox, own = models.view.el.getBoundingClientRect();
    const outer = $("plot").getBoundingClientRect(), canvas = models.view.canvas_view.el.getBoundingClientRect();
    return { left: box.left + canvas.left - outer.left, top: box.top + canvas.top - outer.top,
      width: box.width, height: box.height, own };
  }

  function drawPictures() {
    const canvas = $("pictures"), on = $("draw").checked;
    canvas.hidden = !on;
    if (!on) return;
    const { left: fromLeft, top: fromTop, width, height } = frame(), ratio = window.devicePixelRatio || 1;
    Object.assign(canvas, { width: width * ratio, height: height * ratio });
    Object.assign(canvas.style, { left: `${fromLeft}px`, top: `${fromTop}px`, width: `${width}px`, height: `${height}px` });
    const context = canvas.getContext("2d"), chosen = imagesNearCellCentres(), { scale } = view();
    const stamp = drawPictures.stamp = {}, size = CELL - 6, { x_range: x, y_range: y } = plot;
    context.scale(ratio, ratio);
    chosen.forEach(({ row, at }) => {
      const left = (at[0] - x.start) / scale - size / 2, top = (y.end - at[1]) / scale - size / 2;
      context.fillStyle = colourOf(row);
      context.fillRect(left - 2, top - 2, size + 4, size + 4);
      // A picture is not drawn if the map has moved while it was loading.
      const own = { drawImage: (...a) => { if (drawPictures.stamp === stamp) context.drawImage(...a); } };
      drawPicture(own, row, left, top, size);
    });
    canvas.dataset.number = chosen.size;
  }

  // For each visible cell with images: the image nearest to its centre.
  function imagesNearCellCentres() {
    const [xs, ys] = places(), { x_range: x, y_range: y } = plot, step = CELL * view().scale, chosen = new Map();
    for (let row = 0; row < page.number; row++) {
      if (!state.shown[row] || !(xs[row] > x.start && xs[row] < x.end && ys[row] > y.start && ys[row] < y.end)) continue;
      const cell = [xs[row], ys[row]].map((v) => Math.floor(v / step)), at = cell.map((k) => (k + 0.5) * step);
      const far = (xs[row] - at[0]) ** 2 + (ys[row] - at[1]) ** 2, key = cell.join(" ");
      if (!(chosen.get(key)?.far <= far)) chosen.set(key, { row, at, far });
    }
    return chosen;
  }

  function pictureAt(x, y) {
    const step = CELL * view().scale, cell = [x, y].map((v) => Math.floor(v / step)).join(" ");
    const picture = imagesNearCellCentres().get(cell);
    return picture ? [picture.row] : [];
  }

  // ---- hover ----

  // Bokeh stores the points under the pointer for each glyph.
  const pointsUnderPointer = () => models.dots.flatMap((dots) =>
    [...(dots.get_selection_manager().inspectors.get(dots)?.indices ?? [])]);

  function hovered({ geometry }) {
    const rows = $("draw").checked ? pictureAt(geometry.x, geometry.y) : pointsUnderPointer(), card = $("card");
    if (!rows.length) { card.hidden = true; return; }
    const row = nearest(rows, geometry.x, geometry.y);
    if (card.hidden || card.dataset.row !== String(row)) fillCard(row, rows.length);
    placeCard(geometry);
  }

  function fillCard(row, number) {
    const card = $("card");
    const labels = page.columns.filter((c) => c.listed && c.kind !== "text").slice(0, 2).map((c) => c.name);
    const names = [...new Set([state.colour, "cluster", ...labels, "outlier_rank"])];
    const pairs = names.filter((n) => page.columns.some((c) => c.name === n)).map((n) => [n, cell(n, row)]);
    card.replaceChildren(make("p", { className: "title", textContent: title(row) }), picture(row, 96),
      make("div", {}, [facts(pairs),
        number > 1 ? make("span", { className: "note", textContent: `and ${number - 1} more at this point` }) : null]));
    card.dataset.row = row;
    card.hidden = false;
  }

  function placeCard({ sx, sy }) {
    const card = $("card"), { own } = frame(), outer = $("plot").getBoundingClientRect();
    const canvas = models.view.canvas_view.el.getBoundingClientRect();
    const x = sx + canvas.left - outer.left, y = sy + canvas.top - outer.top;
    const left = x + 18 + card.offsetWidth > own.width ? x - 18 - card.offsetWidth : x + 18;
    const top = Math.min(Math.max(0, y - 30), own.height - card.offsetHeight);
    Object.assign(card.style, { left: `${Math.max(0, left)}px`, top: `${Math.max(0, top)}px` });
  }

  // ---- the image ----

  function neighboursOf(row) {
    const width = page.neighbours, ids = relations("nearest"), far = relations("distances");
    return Array.from({ length: width }, (_, k) => ({ row: ids[row * width + k], distance: far[row * width + k] }))
      .filter(({ row: one }) => one >= 0);
  }

  function tapped({ geometries }) {
    const rows = $("draw").checked ? [] : pointsUnderPointer();
    if (rows.length) open(nearest(rows, geometries.x, geometries.y), false);
  }

  function open(row, byKeyOrClick, isBack = false) {
    if (!isBack && state.row >= 0 && state.row !== row) state.trail.push(state.row);
    state.row = row;
    showImage();
    updateMarkers();
    const [xs, ys] = places(), { x_range: x, y_range: y } = plot;
    if (xs[row] < x.start || xs[row] > x.end || ys[row] < y.start || ys[row] > y.end) moveTo(xs[row], ys[row], view().scale);
    if (byKeyOrClick) ($("image").querySelector(".strip button") ?? $("image")).focus({ preventScroll: true });
    $("side").scrollTop = 0;
    $("image").scrollIntoView({ block: "nearest" });
  }

  function close() {
    const hadFocus = $("image").contains(document.activeElement);
    Object.assign(state, { row: -1, trail: [] });
    $("image").hidden = true;
    updateMarkers();
    if (hadFocus) $("plot").focus();
  }

  function skyLinks(row) {
    const names = page.columns.map((c) => c.name);
    const number = (name) => names.includes(name) && cell(name, row) !== "" ? Number(cell(name, row)) : NaN;
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

  function showImage() {
    const row = state.row, box = $("image"), near = neighboursOf(row);
    const same = new Set(relations("duplicates")[row] ?? []);
    const large = picture(row, 256);
    large.className = "picture";
    large.style.width = large.style.height = "";
    large.setAttribute("role", "img");
    large.setAttribute("aria-label", title(row));
    const back = button("Back", () => open(state.trail.pop(), true, true), { disabled: !state.trail.length });
    const isListed = () => state.list.includes(row);
    const listButton = button("", () => {
      setList(isListed() ? state.list.filter((r) => r !== row) : [...state.list, row]);
      updateListButton();
    });
    const updateListButton = () => { listButton.textContent = isListed() ? "Remove from list" : "Add to list"; };
    updateListButton();
    const all = page.columns.map((c) => [c.name, cell(c.name, row)]);
    const xy = ["x", "y"].map((n) => [n, String(Number(models.points.data[n][row].toPrecision(5)))]);
    fill(box, [
      button("Close", close, { className: "close", title: "Esc" }),
      make("p", { className: "title", textContent: title(row) }), large,
      make("div", { className: "row" }, [back, listButton,
        button("Add neighbours", () => { setList([...state.list, row, ...near.map((n) => n.row)]); updateListButton(); },
          { disabled: !near.length })]),
      skyLinks(row),
      near.length ? make("h3", { textContent: "Nearest neighbours in the embedding, with distances" }) : null,
      strip(near.map((n) => n.row), 72, "Nearest images", (one, k) =>
        ({ words: near[k].distance.toPrecision(3), same: same.has(one) })),
      same.size ? make("p", { className: "note", textContent: `${formatCount(same.size, "near-duplicate")} (orange frame).` }) : null,
      facts([...all, ...xy])]);
    box.hidden = false;
  }

  // ---- the list ----

  function setList(rows) {
    models.points.selected.indices = [...new Set(rows)].sort((a, b) => a - b);
  }

  function listChanged() {
    state.list = [...models.points.selected.indices].sort((a, b) => a - b);
    state.listLength = LIST_PAGE;
    showList();
  }

  function showList() {
    const number = state.list.length, some = state.list.slice(0, state.listLength);
    const head = make("h2", { textContent: number ? `List of ${formatCount(number)}` : "List", ariaLive: "polite" });
    if (!number) {
      $("list").replaceChildren(head, make("p", { className: "note", textContent:
        "Select points with the lasso or the box above the map, or add search results. " +
        "The list can be saved as a table or as a new file list." }));
      return;
    }
    fill($("list"), [head,
      make("div", { className: "row" }, [
        button("Save table", () => save("astromorph-list.csv", table(state.list)), { title: "CSV with all columns, one row per image" }),
        button("Save file list", () => save("astromorph-filelist.csv", fileList(state.list)), { title: "CSV to be used as datafile of astromorph" }),
        button("Show on map", () => fit(state.list), { title: "Zoom to the listed images" }),
        button("Clear", () => { setList([]); $("plot").focus(); })]),
      strip(some, 56, "Listed images"),
      number > some.length ? make("div", { className: "row" }, [button(`Show more (${(number - some.length).toLocaleString("en")})`,
        () => { state.listLength += LIST_PAGE; showList(); })]) : null]);
  }

  // As `spreadsheet_safe` of astromorph: no text is interpreted as a formula.
  function spreadsheetSafe(text) {
    if (!text || !"'=+-@\t\r".includes(text[0])) return text;
    const rest = text.replace(/^'+/, "");
    if (text[0] === "'") return rest && "=+-@\t\r".includes(rest[0]) ? `'${text}` : text;
    return text.trim() !== "" && Number.isFinite(Number(text)) ? text : `'${text}`;
  }

  const quote = (text) => /[",;\t\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const csv = (rows) => rows.map((cells) => `${cells.map(quote).join(",")}\n`).join("");

  function table(rows) {
    const names = [...new Set(["image_id", "path", ...page.columns.map((c) => c.name)])], data = models.points.data;
    const xy = (row) => ["x", "y"].map((n) => String(Number(data[n][row].toPrecision(7))));
    return csv([[...names, "x", "y"].map(spreadsheetSafe),
      ...rows.map((row) => [...names.map((n) => spreadsheetSafe(cell(n, row))), ...xy(row)])]);
  }

  function fileList(rows) {
    const names = page.columns.filter((c) => c.listed && !c.name.startsWith("header_")).map((c) => c.name);
    const absolute = (path) => path.startsWith("/") ? path : `${page.folder}/${path}`;
    return csv([["path", ...names], ...rows.map((row) => [absolute(cell("path", row)), ...names.map((n) => cell(n, row))])]);
  }

  function save(name, text) {
    const href = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
    const link = make("a", { href, download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(href), 10000);
  }

  // ---- start ----

  function fillControls() {
    const kinds = page.columns.filter((c) => c.kind !== "text");
    const group = (label, some) => some.length ? make("optgroup", { label },
      some.map((c) => make("option", { value: c.name, textContent: c.name }))) : null;
    $("colour").append(...[
      group("File list", kinds.filter((c) => c.listed)),
      group("Analysis", kinds.filter((c) => page.analysed.includes(c.name))),
      group("Headers and pixels", kinds.filter((c) => !c.listed && !page.analysed.includes(c.name))),
    ].filter(Boolean));
    $("colour").value = page.first;
    $("layouts").hidden = !page.layouts;
  }

  function connect() {
    let typing;
    $("colour").onchange = () => colourBy($("colour").value);
    $("layout").onchange = () => {
      const [x, y] = $("layout").value === "pca" ? ["pca_1", "pca_2"] : ["x", "y"];
      models.dots.forEach(({ glyph }) => glyph.setv({ x: { field: x }, y: { field: y } }));
      fit();
      updateMarkers();
    };
    $("query").oninput = () => { clearTimeout(typing); typing = setTimeout(find, 150); };
    $("search").onsubmit = (event) => { event.preventDefault(); clearTimeout(typing); showFound(); };
    $("take").onclick = () => setList([...state.list, ...state.found]);
    $("draw").onchange = drawPictures;
    $("whole").onclick = () => fit();
    $("plot").addEventListener("keydown", moveByKey);
    $("plot").addEventListener("mouseleave", () => { $("card").hidden = true; });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      if (!$("card").hidden) $("card").hidden = true;
      else if (state.row >= 0) close();
      else if ($("query").value) { $("query").value = ""; find(); }
    });
    const onResize = () => onNextFrame(keepScale), onMove = () => onNextFrame(drawPictures);
    [plot.properties.inner_width, plot.properties.inner_height].forEach((p) => p.change.connect(onResize));
    [plot.x_range, plot.y_range].forEach((range) => range.change.connect(onMove));
    models.points.selected.change.connect(listChanged);
    plot.on_event("tap", ({ x, y }) => { if ($("draw").checked) pictureAt(x, y).forEach((row) => open(row, false)); });
    if (window.innerWidth <= NARROW) plot.toolbar.active_scroll = null;
    const header = document.querySelector("header");
    new ResizeObserver(() => document.body.style.setProperty("--top", `${header.offsetHeight}px`)).observe(header);
  }

  // WebGL emulated by the CPU is slower than drawing on a canvas.
  function hasFastGraphics() {
    const requested = location.hash.slice(1);
    if (["webgl", "canvas"].includes(requested)) return requested === "webgl";
    const context = document.createElement("canvas").getContext("webgl");
    const names = context?.getExtension("WEBGL_debug_renderer_info");
    const name = names ? context.getParameter(names.UNMASKED_RENDERER_WEBGL) : "";
    context?.getExtension("WEBGL_lose_context")?.loseContext();
    return Boolean(context) && !/swiftshader|llvmpipe|software|basic render/i.test(name);
  }

  async function start() {
    const item = read("bokeh");
    if (!hasFastGraphics()) item.doc.roots[0].attributes.output_backend = "canvas";
    const views = await Bokeh.embed.embed_item(item, $("drawing"));
    const root = [...views][0], named = (name) => root.model.document.get_model_by_name(name);
    plot = root.model;
    models = { view: root, mapper: named("mapper"), bar: named("bar"), points: named("points"),
      found: named("found"), near: named("near"), here: named("here"), lines: named("lines"),
      dots: page.markers.map((_, k) => named(`points-${k}`)), shown: page.markers.map((_, k) => named(`shown-${k}`)) };
    fillControls();
    connect();
    colourBy(page.first);
    showList();
    fit();
    document.body.dataset.ready = "yes";
  }

  return { start, hovered, tapped, state, models: () => models, fit, spreadsheetSafe };
})();

astromorphMap.start();
