// Colours, the legend, and the filters that belong to it.
//
// colourBy(name)   colours the map by a column of the page, or one of `addColumn`
// filterBy(name, value)  hides images: a Set of entries, { low, high }, or null for all
// applyFilters()   after a change of the cells of a column that is filtered

const OTHER = "other values", NONE = "(none)", SIGNS = ["●", "▲", "■", "◆"];

// The entries of a column's legend: the most frequent values, each with a colour and
// a marker; then all other values together; then rows without a value.
const categories = memoise((name) => {
  const { words, code } = column(name), counts = new Array(words.length).fill(0);
  for (let row = 0; row < page.number; row++) counts[code(row)]++;
  const isNone = (k) => words[k] === "" || words[k] === "nan";
  const order = words.map((_, k) => k).filter((k) => !isNone(k)).sort((a, b) => counts[b] - counts[a]);
  const few = page.colours.length, maxEntries = few * page.markers.length;
  const entries = order.slice(0, maxEntries).map((k, place) => ({
    name: words[k], codes: [k], colour: page.colours[place % few], marker: Math.floor(place / few) }));
  const rest = order.slice(maxEntries), empty = words.map((_, k) => k).filter(isNone), gray = { colour: page.none, marker: 0, isGray: true };
  if (rest.length) entries.push({ name: `${OTHER} (${rest.length.toLocaleString("en")})`, codes: rest, ...gray });
  if (empty.length) entries.push({ name: NONE, codes: empty, ...gray });
  const ofCode = new Uint8Array(words.length), ofRow = new Uint8Array(page.number);
  entries.forEach((entry, k) => {
    entry.count = entry.codes.reduce((sum, c) => sum + counts[c], 0);
    entry.codes.forEach((c) => { ofCode[c] = k; });
  });
  for (let row = 0; row < page.number; row++) ofRow[row] = ofCode[code(row)];
  return { entries, ofRow };
});

async function colourBy(name) {
  state.colour = name;
  await loadColumn(name);
  if (state.colour !== name) return;  // another one was chosen in the meantime
  paintPoints();
  applyFilters();
  showLegend();
}

function paintPoints() {
  const name = state.colour, { numbers } = column(name);
  state.painted = name;
  if (!numbers) {
    const { entries, ofRow } = categories(name);
    state.scale = null;
    setPaint(ofRow, entries.map(({ colour, marker }) => ({ colour: themed(colour), marker })));
    return;
  }
  const scale = scaleOf(name), share = shareOf(scale), colours = ramp(), codes = new Uint8Array(page.number), steps = colours.length;
  for (let row = 0; row < page.number; row++) {
    const place = Math.floor(share(numbers[row]) * steps);
    codes[row] = place >= 0 ? Math.min(steps - 1, place) : place < 0 ? 0 : steps;
  }
  state.scale = scale;
  setPaint(codes, [...colours, page.none].map((colour) => ({ colour, marker: 0 })));
}

// ---- filters ----

function applyFilters() {
  const { shown } = state, { number } = page;
  shown.fill(1);
  for (const [name, filter] of state.filters) {
    const { numbers } = column(name);
    if (numbers) {
      const { low, high } = filter;
      for (let row = 0; row < number; row++) if (!(numbers[row] >= low && numbers[row] <= high)) shown[row] = 0;
    } else {
      const { ofRow, entries } = categories(name), hides = entries.map((_, k) => filter.has(k));
      for (let row = 0; row < number; row++) if (hides[ofRow[row]]) shown[row] = 0;
    }
  }
  updatePaint();
  showCounts();
}

function filterBy(name, value) {
  const isAll = value === null || (value instanceof Set && value.size === 0);
  isAll ? state.filters.delete(name) : state.filters.set(name, value);
  applyFilters();
}

function showCounts() {
  const shown = state.shown.reduce((sum, one) => sum + one, 0), line = $("shown");
  const others = [...state.filters.keys()].filter((name) => name !== state.colour);
  const text = [shown < page.number ? `${shown.toLocaleString("en")} of ${formatCount(page.number)} shown.` : "",
    others.length ? `Also filtered by ${others.join(", ")}.` : ""].join(" ").trim();
  if (!line) return;
  line.textContent = text;
  $("everything").hidden = !text;
}

// ---- the legend ----

function showLegend() {
  const { numbers } = column(state.colour);
  const clear = button("Show all images", () => { state.filters.clear(); colourBy(state.colour); $("colour").focus(); },
    { id: "everything" });
  fill($("legend"), [make("h2", { textContent: state.colour }), ...(numbers ? rangeLegend() : entryLegend()),
    make("p", { className: "note", id: "shown", ariaLive: "polite" }), clear]);
  showCounts();
}

function entryLegend() {
  const name = state.colour, { entries } = categories(name), hidden = () => new Set(state.filters.get(name) ?? []);
  const boxes = entries.map((entry, k) => make("input", {
    type: "checkbox", checked: !hidden().has(k), onchange: (event) => {
      const now = hidden();
      event.target.checked ? now.delete(k) : now.add(k);
      filterBy(name, now);
    } }));
  const setAll = (on) => () => {
    boxes.forEach((box) => { box.checked = on; });
    filterBy(name, on ? null : new Set(entries.keys()));
  };
  const rows = typicalRows(name), size = entries.length > 14 ? 26 : entries.length > 8 ? 32 : 40;
  const pictures = entries.map((entry, k) => entryPicture(entry, k, rows[k], size));
  const items = entries.map((entry, k) => {
    const sign = make("span", { textContent: SIGNS[entry.marker], ariaHidden: "true" });
    sign.style.color = themed(entry.colour);
    return make("li", {}, [pictures[k], make("label", {}, [boxes[k], sign,
      make("span", { className: "words" }, [make("span", { className: "name", textContent: entry.name }),
        make("span", { className: "count", textContent: entry.count.toLocaleString("en") })])])]);
  });
  return [make("div", { className: "row" }, [button("All", setAll(true)), button("None", setAll(false))]),
    withArrows(make("ul", { className: "entries" }, items), pictures),
    make("p", { className: "note", textContent: "A picture selects its group; a tick shows or hides it." })];
}

// A typical image of a group; a click selects the group, another one clears the list.
function entryPicture(entry, k, row, size) {
  const key = `${state.colour} ${k}`, label = `Select ${nameOfEntry(state.colour, entry)}, ${formatCount(entry.count)}`;
  const element = button("", () => selectEntry(key, k), { className: "example", title: label });
  element.append(row >= 0 ? picture(row, size) : SIGNS[entry.marker]);
  element.style.borderColor = element.style.color = themed(entry.colour);
  element.style.width = element.style.height = `${size + 6}px`;
  element.setAttribute("aria-label", label);
  element.dataset.entry = key;
  element.setAttribute("aria-pressed", String(state.selected === key));
  return element;
}

function selectEntry(key, k) {
  const { ofRow } = categories(state.colour), rows = [];
  if (state.selected === key) { setList([]); return; }
  for (let row = 0; row < page.number; row++) if (ofRow[row] === k && state.shown[row]) rows.push(row);
  setList(rows, key);
}

function showSelected() {
  document.querySelectorAll("#legend .example").forEach((element) =>
    element.setAttribute("aria-pressed", String(element.dataset.entry === state.selected)));
}

function rangeLegend() {
  const name = state.colour, { min, max, number, log } = limits(name), { low, high, isLog } = scaleOf(name), unit = unitOf(name);
  const field = (label) => make("input", { type: "number", step: "any", ariaLabel: `${label} of ${name}` });
  const from = field("Minimum"), to = field("Maximum"), filtered = state.filters.get(name);
  if (filtered?.low > -Infinity) from.value = filtered.low;
  if (filtered?.high < Infinity) to.value = filtered.high;
  [from.placeholder, to.placeholder] = [min, max].map((value) => {
    const text = String(Number(value.toPrecision(5)));
    return text.length > 8 ? value.toExponential(2) : text;
  });
  from.onchange = to.onchange = () => {
    const value = (input, otherwise) => input.value === "" ? otherwise : Number(input.value);
    const range = { low: value(from, -Infinity), high: value(to, Infinity) };
    filterBy(name, from.value === "" && to.value === "" ? null : range);
  };
  return [
    log ? make("label", {}, [make("input", { type: "checkbox", id: "log", checked: isLog, onchange: (event) => {
      setLog(name, event.target.checked);
      colourBy(name).then(() => $("log").focus());
    } }), " Logarithmic colours"]) : null,
    make("p", { className: "note", textContent: `Values range from ${plainNumber(min)} to ${plainNumber(max)}${unit ? ` ${unit}` : ""}. ` +
      `The colour scale ranges from ${plainNumber(low)} to ${plainNumber(high)}; values outside it have the colour of its nearest end.` +
      (number < page.number ? ` ${formatCount(page.number - number)} without a value: gray.` : "") }),
    make("p", { textContent: "Show only values from / to:" }), make("div", { className: "row" }, [from, to])];
}
