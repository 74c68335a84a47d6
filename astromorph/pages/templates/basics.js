// What the scripts of several pages share: elements of the page, and files to be saved. Text
// from headers and lists is only inserted as textContent.
//
// make(tag, properties, children), button(text, onclick), fill(element, children)
// formatCount(number, what)   "1 image", "2,000 images"
// saveFile(name, parts) saves a text, or several texts in succession
// csv(rows)             arrays of texts as lines of CSV; cells of a table for
//                       spreadsheets first pass `spreadsheetSafe`

function make(tag, properties = {}, children = []) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child != null));
  return element;
}

const button = (text, onclick, properties = {}) =>
  make("button", { type: "button", textContent: text, onclick, ...properties });
const fill = (element, children) => element.replaceChildren(...children.filter((child) => child != null));
const formatCount = (number, what = "image") => `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;

// ---- files ----

// As `spreadsheet_safe` of astromorph: no text is interpreted as a formula.
function spreadsheetSafe(text) {
  if (!text || !"'=+-@\t\r".includes(text[0])) return text;
  const rest = text.replace(/^'+/, "");
  if (text[0] === "'") return rest && "=+-@\t\r".includes(rest[0]) ? `'${text}` : text;
  return text.trim() !== "" && Number.isFinite(Number(text)) ? text : `'${text}`;
}

const quote = (text) => /[",;\t\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
const csv = (rows) => rows.map((cells) => `${cells.map(quote).join(",")}\n`).join("");

function saveFile(name, parts, type = "text/csv;charset=utf-8") {
  const href = URL.createObjectURL(new Blob([parts].flat(), { type }));
  make("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 10000);
}
