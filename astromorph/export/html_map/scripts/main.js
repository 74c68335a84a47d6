// Connects the controls and starts the page. `astromorphMap` is what chunks, tests and
// benchmarks use.

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
  $("layouts").hidden = !page.groups.pca;
}

async function changeLayout() {
  const name = $("layout").value, group = await loadGroup(name);
  if ($("layout").value !== name) return;
  setLayout(group);
  fitMain();
}

function connect() {
  let typing;
  $("colour").onchange = () => colourBy($("colour").value);
  $("layout").onchange = changeLayout;
  $("query").oninput = () => { clearTimeout(typing); typing = setTimeout(find, 150); };
  $("search").onsubmit = (event) => { event.preventDefault(); clearTimeout(typing); showFound(); };
  $("take").onclick = () => setList([...state.list, ...state.found]);
  $("draw").onchange = $("labels").onchange = drawAll;
  $("whole").onclick = () => fit();
  $("main-part").onclick = fitMain;
  $("save").onclick = savePicture;
  document.addEventListener("keydown", (event) => {
    handleKey(event);
    if (event.key !== "Escape") return;
    if (!$("card").hidden) $("card").hidden = true;
    else if (state.row >= 0) closeImage();
    else if ($("query").value) { $("query").value = ""; find(); }
  });
  addEventListener("unhandledrejection", (event) => { event.preventDefault(); showProblem(event.reason.message); });
  const repaint = () => { if (points.paint) { paintPoints(); showLegend(); drawAll(); } };
  darkScheme.onchange = repaint;
  addEventListener("beforeprint", () => { printing = true; repaint(); });
  addEventListener("afterprint", () => { printing = false; repaint(); });
  new ResizeObserver(resize).observe($("plot"));
  const header = document.querySelector("header");
  const measure = () => document.body.style.setProperty("--top", `${header.offsetHeight}px`);
  new ResizeObserver(measure).observe(header);
  measure();
}

async function loadNew() {
  if (!page.new) return;
  const { words, code } = await loadColumn(page.new), rows = [];
  for (let row = 0; row < page.number; row++) if (words[code(row)]) rows.push(row);
  points.isNew = rows;
}

// Opens the image of an address such as map.html#image=ID, the links of the gallery.
async function openFromAddress() {
  const id = location.hash.match(/^#image=(.+)$/)?.[1];
  if (!id) return;
  const [row] = await findRows([{ image_id: decodeURIComponent(id), path: "" }]);
  row === undefined ? showProblem(`There is no image with the id ${id} on this map.`) : openImage(row);
}

async function start() {
  fillControls();
  showTools();
  addEdges();
  connect();
  connectTools();
  connectMarks();
  showList();
  resize();
  setLayout(await loadGroup("map"));
  await loadNew();
  await colourBy(page.first);
  fitMain();
  drawAll();
  settle();
  document.body.dataset.ready = "yes";
  onNextFrame(drawMarks);
  addEventListener("hashchange", openFromAddress);
  await openFromAddress();
}

const astromorphMap = { receive, state, view, points, page, moveTo, fit, drawAll, settle, pixelOf, nearestRow, countShown, labels: () => placement, spreadsheetSafe,
  colourBy, addColumn, openImage, setList, setMark, marksAsText, loadMarks, rankingOf: () => ranking };

start();
