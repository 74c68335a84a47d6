// The list of selected images, and the files that are saved from it.
//
// setList(rows, key)  replaces the list: sorted, and without repetitions; `key` names the
//                    entry of the legend that was selected
// isInList(row)
// tableOf(rows)      a promise of texts: CSV with all columns

const LIST_PAGE = 60, inList = new Uint8Array(page.number);
let listLength = LIST_PAGE;

const isInList = (row) => inList[row] === 1;

function setList(rows, key = "") {
  state.selected = key;
  inList.fill(0);
  for (const row of rows) inList[row] = 1;
  state.list = [];
  for (let row = 0; row < page.number; row++) if (inList[row]) state.list.push(row);
  listLength = LIST_PAGE;
  showList();
  updateListButton();
  showSelected();
  updatePaint();
}

function showList() {
  const number = state.list.length, some = state.list.slice(0, listLength);
  const head = make("h2", { textContent: number ? `List of ${formatCount(number)}` : "List", ariaLive: "polite" });
  if (!number) {
    $("list").replaceChildren(head, make("p", { className: "note", textContent:
      "Select points with the lasso or the box above the map, or add search results. " +
      "The list can be saved as a table or as a new file list." }));
    return;
  }
  fill($("list"), [head,
    make("div", { className: "row" }, [
      button("Save table", async () => saveFile("astromorph-list.csv", await tableOf(state.list)), { title: "CSV with all columns, one row per image" }),
      button("Save file list", async () => saveFile("astromorph-filelist.csv", await fileListOf(state.list)), { title: "CSV to be used as datafile of astromorph" }),
      button("Send to TOPCAT", sendList, { title: "Or to Aladin and other programs that are open on this computer (SAMP)" }),
      button("Show on map", () => fit(state.list), { title: "Zoom to the listed images" }),
      button("Clear", () => { setList([]); $("plot").focus(); })]),
    strip(some, 56, "Listed images"),
    number > some.length ? make("div", { className: "row" }, [button(`Show more (${(number - some.length).toLocaleString("en")})`,
      () => { listLength += LIST_PAGE; showList(); })]) : null]);
}

// One text for each row, from chunks that are loaded one after the other.
async function linesOf(rows, cellsOfRow) {
  const lines = [];
  for (const [k, row] of rows.entries()) {
    lines.push(csv([cellsOfRow(await loadRow(row))]));
    if (k % 1000 === 999) showProgress(`Collecting rows: ${Math.round(100 * k / rows.length)} %`);
  }
  showProgress("");
  return lines;
}

async function tableOf(rows) {
  const names = [...new Set(["image_id", "path", ...page.columns.map((c) => c.name), "x", "y"])];
  return [csv([names.map(spreadsheetSafe)]), ...await linesOf(rows, ({ cell }) => names.map((n) => spreadsheetSafe(cell(n))))];
}

async function fileListOf(rows) {
  const names = page.columns.filter((c) => c.listed && !c.name.startsWith("header_")).map((c) => c.name);
  const absolute = (path) => path.startsWith("/") ? path : `${page.folder}/${path}`;
  return [csv([["path", ...names]]), ...await linesOf(rows, ({ cell }) => [absolute(cell("path")), ...names.map(cell)])];
}
