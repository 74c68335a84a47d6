// Search by parts of names, paths and ids. All names are loaded at the first search.

const SEARCHED_AT_ONCE = 8;  // files

// For each chunk: object, file name and id of its rows as one text, or only the paths,
// and where each row begins.
const loadTexts = memoise(async (where) => {
  const number = Math.ceil(page.number / page.rows.names), chunks = new Array(number);
  let next = 0, done = 0;
  const work = async () => {
    while (next < number) {
      const k = next++, [object, path, id] = await loadNames(k), starts = [], texts = [];
      const rows = Math.min(page.rows.names, page.number - k * page.rows.names);
      for (let j = 0, at = 0; j < rows; j++) {
        const text = (where === "path" ? path.text(j) : `${object.text(j)}\n${fileName(path.text(j))}\n${id.text(j)}`).toLowerCase();
        starts.push(at);
        texts.push(text);
        at += text.length + 1;
      }
      chunks[k] = { text: texts.join("\n"), starts };
      done++;
      if (number > SEARCHED_AT_ONCE) $("said").textContent = `Loading names: ${Math.round(100 * done / number)} %`;
    }
  };
  await Promise.all(Array.from({ length: SEARCHED_AT_ONCE }, work));
  return chunks;
});

function rowsWith(query, chunks) {
  const found = [];
  chunks.forEach(({ text, starts }, chunk) => {
    for (let row = 0, at = text.indexOf(query); at >= 0; at = row < starts.length ? text.indexOf(query, starts[row]) : -1) {
      let end = starts.length;  // the last row that begins at or before the match
      while (end - row > 1) { const middle = (row + end) >> 1; starts[middle] <= at ? row = middle : end = middle; }
      found.push(chunk * page.rows.names + row++);
    }
  });
  return found;
}

const queryOf = () => $("query").value.trim().toLowerCase();

// Returns whether the result belongs to the present query.
async function find() {
  const query = queryOf(), found = query ? rowsWith(query, await loadTexts(query.includes("/") ? "path" : "short")) : [];
  if (query !== queryOf()) return false;
  const away = found.filter((row) => !state.shown[row]).length;
  state.found = found;
  $("said").textContent = !query ? "" : (found.length ? formatCount(found.length, "match").replace(/matchs$/, "matches") : "no match") +
    (away ? `, ${away.toLocaleString("en")} hidden by filters` : "") +
    (found.length > MAX_RINGS ? `, at most ${MAX_RINGS.toLocaleString("en")} are marked` : "");
  $("take").disabled = !found.length;
  redraw();
  return true;
}

async function showFound() {
  if (!await find()) return;
  if (state.found.length) fit(state.found);
  if (state.found.length === 1) openImage(state.found[0], false);
}
