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
  const rest = order.slice(maxEntries), empty = words.map((_, k) => k).filter(isNone), gray = { colour: page.none, marker: 0 };
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

const limits = memoise((name) => {
  const { numbers, low: first, high: last } = column(name);
  const sorted = Float64Array.from(numbers).filter(Number.isFinite).sort(), number = sorted.length;
  const at = (share) => sorted[Math.round(share * (number - 1))];
  let [low, high] = [first ?? at(0.02), last ?? at(0.98)];
  if (!(high > low)) [low, high] = [sorted[0], sorted[number - 1]];
  return { low, high: high > low ? high : low + 1, min: sorted[0] ?? NaN, max: sorted[number - 1] ?? NaN, number };
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
  if (!numbers) {
    const { entries, ofRow } = categories(name);
    state.scale = null;
    setPaint(ofRow, entries.map(({ colour, marker }) => ({ colour: themed(colour), marker })));
    return;
  }
  const { low, high } = limits(name), colours = ramp(), codes = new Uint8Array(page.number), steps = colours.length;
  for (let row = 0; row < page.number; row++) {
    const place = Math.floor((numbers[row] - low) / (high - low) * steps);
    codes[row] = place >= 0 ? Math.min(steps - 1, place) : place < 0 ? 0 : steps;
  }
  state.scale = { low, high };
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
  $("legend").replaceChildren(make("h2", { textContent: state.colour }), ...(numbers ? rangeLegend() : entryLegend()),
    make("p", { className: "note", id: "shown", ariaLive: "polite" }), clear);
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
  const items = entries.map((entry, k) => {
    const sign = make("span", { textContent: SIGNS[entry.marker], ariaHidden: "true" });
    sign.style.color = themed(entry.colour);
    return make("li", {}, [make("label", {}, [boxes[k], sign,
      make("span", { className: "name", textContent: entry.name }),
      make("span", { className: "count", textContent: entry.count.toLocaleString("en") })])]);
  });
  return [make("div", { className: "row" }, [button("All", setAll(true)), button("None", setAll(false))]),
    make("ul", { className: "entries" }, items)];
}

function rangeLegend() {
  const name = state.colour, { min, max, number, low, high } = limits(name);
  const field = (label) => make("input", { type: "number", step: "any", ariaLabel: `${label} of ${name}` });
  const from = field("Minimum"), to = field("Maximum"), filtered = state.filters.get(name);
  if (filtered?.low > -Infinity) from.value = filtered.low;
  if (filtered?.high < Infinity) to.value = filtered.high;
  [from.placeholder, to.placeholder] = [shortNumber(min), shortNumber(max)];
  from.onchange = to.onchange = () => {
    const value = (input, otherwise) => input.value === "" ? otherwise : Number(input.value);
    const range = { low: value(from, -Infinity), high: value(to, Infinity) };
    filterBy(name, from.value === "" && to.value === "" ? null : range);
  };
  return [
    make("p", { className: "note", textContent: `Values range from ${shortNumber(min)} to ${shortNumber(max)}. The colour scale ranges from ` +
      `${shortNumber(low)} to ${shortNumber(high)}; values outside it have the colour of its nearest end.` +
      (number < page.number ? ` ${formatCount(page.number - number)} without a value: gray.` : "") }),
    make("p", { textContent: "Show only values from / to:" }), make("div", { className: "row" }, [from, to])];
}
