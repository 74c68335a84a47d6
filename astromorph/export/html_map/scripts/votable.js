// The list as a VOTable, and sending it to other programs.
//
// votableOf(rows)   a promise of the text of a VOTable with all columns
// sendList()        sends the list; the page shows to how many programs, or why not

const MAX_SENT = 20000;  // images; a larger text is slow for both programs
const NUMERIC = /^[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$/;
const UCDS = { image_id: "meta.id;meta.main", ra_deg: "pos.eq.ra;meta.main", dec_deg: "pos.eq.dec;meta.main" };

const inXml = (text) => text.replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, " ")
  .replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/"/g, "&quot;");

// Digits with leading zeros, and integers that a number cannot hold, are names.
const isNumeric = (text) => text === "" || /^nan$/i.test(text) ||
  (NUMERIC.test(text) && (!/^[+-]?[0-9]+$/.test(text) || Number.isSafeInteger(Number(text))));

async function votableOf(rows) {
  const names = [...new Set(["image_id", "path", ...page.columns.map((c) => c.name), "x", "y"])];
  const numeric = names.map(() => true), cells = [];
  for (const [k, row] of rows.entries()) {
    const { cell } = await loadRow(row);
    cells.push(names.map(cell));
    cells[k].forEach((text, c) => { numeric[c] &&= isNumeric(text); });
    if (k % 1000 === 999) showProgress(`Collecting rows: ${Math.round(100 * k / rows.length)} %`);
  }
  const some = names.map((_, c) => cells.some((texts) => texts[c] !== ""));
  const fields = names.map((name, c) => {
    const type = numeric[c] && some[c] ? 'datatype="double"' : 'datatype="unicodeChar" arraysize="*"';
    const unit = name.endsWith("_deg") ? ' unit="deg"' : name.endsWith("_arcsec") ? ' unit="arcsec"' : "";
    return `<FIELD name="${inXml(name)}" ${type}${unit}${UCDS[name] ? ` ucd="${UCDS[name]}"` : ""}/>`;
  });
  const lines = cells.map((texts) => `<TR>${texts.map((text, c) =>
    `<TD>${numeric[c] && some[c] && text !== "" ? text.replace(/^nan$/i, "NaN") : inXml(text)}</TD>`).join("")}</TR>`);
  return `<?xml version="1.0" encoding="UTF-8"?>
<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE type="results">
<TABLE name="astromorph">
${fields.join("\n")}
<DATA><TABLEDATA>
${lines.join("\n")}
</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>
`;
}

async function sendList() {
  const number = state.list.length;
  if (number > MAX_SENT) {
    throw new Error(`At most ${formatCount(MAX_SENT)} can be sent from this page: save the table, and run ` +
      "`astromorph send --rows astromorph-list.csv`.");
  }
  const table = await votableOf(state.list);
  showProgress("Waiting for the other program, which may ask whether to accept this page");
  try {
    const programs = await sendTable(`astromorph: ${formatCount(number)}`, table);
    showProgress(`${formatCount(number)} sent to ${formatCount(programs, "program")}`);
  } catch (error) {
    showProgress("");
    throw error;
  }
}
