// Scales of colours for numbers: their ends, linear or logarithmic, and their ticks.
//
// limits(name)       the range of a column, and the ends of both scales:
//                    { linear: [low, high], log: [low, high] or null, isLog, min, max, number }
// scaleOf(name)      the scale that is used: { name, low, high, isLog }
// setLog(name, is)   chooses between the scales
// shareOf(scale)     a function from a value to its place, from 0 (low) to 1 (high)
// ticksOf(scale)     [{ share, text }]
// plainNumber(value) a number as people write it: 0.01, 250, 3×10⁻⁵

const RANGE_OF_LOG = 100, CROWDED = 0.25, FENCE = 3, MAX_TICKS = 6, SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";
const chosenLog = new Map();

// The 2nd and the 98th percentile, but no value that is farther than three interquartile
// ranges from the quartiles: among few values, one can be the 98th percentile.
function robustEnds(sorted) {
  const at = (share) => sorted[Math.round(share * (sorted.length - 1))], [low, first, third, high] = [0.02, 0.25, 0.75, 0.98].map(at);
  const far = first < third ? FENCE * (third - first) : Infinity;
  const near = sorted.filter((value) => value >= Math.max(low, first - far) && value <= Math.min(high, third + far));
  let ends = [near[0], near[near.length - 1]];
  if (!(ends[1] > ends[0])) ends = [sorted[0], sorted[sorted.length - 1]];
  return ends[1] > ends[0] ? ends : [ends[0], ends[0] + 1];
}

const limits = memoise((name) => {
  const { numbers, low, high, added } = column(name), sorted = Float64Array.from(numbers).filter(Number.isFinite).sort();
  const number = sorted.length, min = sorted[0] ?? NaN, max = sorted[number - 1] ?? NaN;
  const found = number ? robustEnds(sorted) : [0, 1], linear = [low ?? found[0], high ?? found[1]];
  const isPositive = sorted[Math.round(0.02 * (number - 1))] > 0 && max > min;
  const log = isPositive ? robustEnds(sorted.filter((v) => v > 0).map(Math.log10)).map((v) => 10 ** v) : null;
  // Half of the images would share a quarter of the colours of a linear scale.
  const isCrowded = (sorted[number >> 1] - linear[0]) / (linear[1] - linear[0]) < CROWDED;
  return { linear, log, min, max, number, isLog: !added && log !== null && isCrowded && log[1] / log[0] >= RANGE_OF_LOG };
});

function scaleOf(name) {
  const { linear, log, isLog: preferred } = limits(name), isLog = log !== null && (chosenLog.get(name) ?? preferred);
  const [low, high] = isLog ? log : linear;
  return { name, low, high, isLog };
}

const setLog = (name, isLog) => chosenLog.set(name, isLog);

function shareOf({ low, high, isLog }) {
  if (!isLog) return (value) => (value - low) / (high - low);
  const start = Math.log(low), span = Math.log(high) - start;
  return (value) => value <= 0 ? -1 : (Math.log(value) - start) / span;
}

// ---- texts of numbers ----

const exponentOf = (value) => value === 0 ? 0 : Number(Math.abs(value).toExponential().split("e")[1]);
const minus = (text) => text.replace("-", "−");
const powerOfTen = (exponent) => `10${exponent < 0 ? "⁻" : ""}${[...String(Math.abs(exponent))].map((d) => SUPERSCRIPTS[d]).join("")}`;
const isPlain = (exponent) => exponent >= -3 && exponent < 5;

function plainNumber(value, digits = 5) {
  const rounded = Number(value.toPrecision(digits)), exponent = exponentOf(rounded);
  if (!Number.isFinite(rounded) || isPlain(exponent)) return minus(String(rounded));
  return withPower(rounded, exponent);
}

function withPower(value, exponent) {
  const factor = Number((value / 10 ** exponent).toPrecision(5));
  if (factor === 0) return "0";
  return Math.abs(factor) === 1 ? minus(factor < 0 ? "-" : "") + powerOfTen(exponent) : `${minus(String(factor))}×${powerOfTen(exponent)}`;
}

// ---- ticks ----

function ticksOf(scale) {
  const { low, high, isLog } = scale, share = shareOf(scale), decades = isLog ? decadeTicks(low, high) : [];
  if (decades.length >= 3) return decades.map((value) => ({ share: share(value), text: plainNumber(value, 3) }));
  const values = evenTicks(low, high), exponent = exponentOf(Math.max(Math.abs(values[0]), Math.abs(values.at(-1))));
  const text = (value) => isPlain(exponent) ? minus(String(value)) : withPower(value, exponent);
  return values.map((value) => ({ share: share(value), text: text(value) }));
}

// Powers of ten, or also two and five times a power of ten if there are few of them.
function decadeTicks(low, high) {
  const first = Math.floor(Math.log10(low)), last = Math.floor(Math.log10(high)), step = Math.ceil((last - first) / MAX_TICKS) || 1;
  const ticks = (factors, every) => {
    const found = [];
    for (let e = first; e <= last; e++) if (e % every === 0) found.push(...factors.map((f) => Number(`${f}e${e}`)));
    return found.filter((v) => v >= low * 0.999 && v <= high * 1.001);
  };
  const powers = ticks([1], step);
  return powers.length >= 3 ? powers : ticks([1, 2, 5], 1);
}

// Multiples of 1, 2 or 5 times a power of ten.
function evenTicks(low, high) {
  const rough = (high - low) / MAX_TICKS, power = exponentOf(rough), size = [1, 2, 5, 10].find((f) => Number(`${f}e${power}`) >= rough * 0.999);
  const step = Number(`${size}e${power}`), values = [];
  for (let k = Math.ceil(low / step - 1e-6); k * step <= high + 1e-6 * step; k++) values.push(Number((k * step).toPrecision(10)));
  return values;
}
