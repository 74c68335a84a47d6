// The ranking of all images by those that are marked: the same model as
// astromorph/ranking/model.py, which explains it. No function here uses the page, so that
// Node can run them. `points` is a group as from `loadGroup`; marks are a Map from rows to
// { mark, name }, where mark is INTERESTING, NOT_INTERESTING or "", and name is a class.
//
// findTargets(marks)                   what can be ranked: [{ name, isClass, rows, labels }]
// fitTarget(points, target, marks)     { coefficients, intercept }
// scoresOf(points, model)              a number from 0 to 1 for each row
// mostLikely(scores, marks, number)    unmarked rows with the highest scores
// mostInformative(points, scores, marks, number)  unmarked rows to be marked next

const INTERESTING = "interesting", NOT_INTERESTING = "not interesting";
const INVERSE_REGULARISATION = 1, MAX_BACKGROUND = 500, CANDIDATES = 10;
const GRADIENT = 1e-8, MAX_STEPS = 100;

function findTargets(marks) {
  const targets = [], all = [...marks].sort((a, b) => a[0] - b[0]);
  const add = (name, isClass, used, isExample) =>
    targets.push({ name, isClass, rows: used.map(([row]) => row), labels: used.map(([, one]) => isExample(one)) });
  if (all.some(([, { mark }]) => mark === INTERESTING))
    add(INTERESTING, false, all.filter(([, { mark }]) => mark), ({ mark }) => mark === INTERESTING);
  const used = all.filter(([, { mark, name }]) => name || mark === NOT_INTERESTING);
  for (const name of classNames(marks)) add(name, true, used, (one) => one.name === name);
  return targets;
}

const classNames = (marks) => [...new Set([...marks.values()].map(({ name }) => name).filter(Boolean))].sort();

function backgroundRows(number, marks) {
  const unmarked = [], rows = [];
  for (let row = 0; row < number; row++) if (!marks.has(row)) unmarked.push(row);
  const size = Math.min(MAX_BACKGROUND, unmarked.length);
  for (let k = 0; k < size; k++) rows.push(unmarked[Math.floor(k * unmarked.length / size)]);
  return rows;
}

const rowCount = (points) => points.values.length / points.width;

function coordinates(points, row) {
  const { values, width, scales } = points;
  return Float64Array.from({ length: width }, (_, k) => scales[k] * values[row * width + k]);
}

function fitTarget(points, target, marks) {
  const rows = [...target.rows], labels = [...target.labels], number = rows.length;
  if (labels.every(Boolean)) {
    const background = backgroundRows(rowCount(points), marks);
    rows.push(...background);
    labels.push(...background.map(() => false));
  }
  const examples = labels.filter(Boolean).length, others = labels.length - examples;
  if (!others) return { coefficients: new Float64Array(points.width), intercept: 0 };
  const weights = labels.map((isExample) => number / 2 / (isExample ? examples : others));
  return fitLogistic(rows.map((row) => coordinates(points, row)), labels, weights);
}

const logistic = (x) => 1 / (1 + Math.exp(-x));
const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));

// Newton's method; the last parameter is the intercept, which is not regularised.
function fitLogistic(inputs, labels, weights) {
  const width = inputs[0].length, size = width + 1, parameters = new Float64Array(size);
  const exponent = (x, p) => { let sum = p[width]; for (let k = 0; k < width; k++) sum += x[k] * p[k]; return sum; };
  const loss = (p) => {
    let sum = 0;
    for (let k = 0; k < width; k++) sum += p[k] * p[k] / 2 / INVERSE_REGULARISATION;
    inputs.forEach((x, j) => { sum += weights[j] * softplus(labels[j] ? -exponent(x, p) : exponent(x, p)); });
    return sum;
  };
  let least = loss(parameters);
  for (let step = 0; step < MAX_STEPS; step++) {
    const gradient = new Float64Array(size), hessian = Array.from({ length: size }, () => new Float64Array(size));
    for (let k = 0; k < width; k++) {
      gradient[k] = parameters[k] / INVERSE_REGULARISATION;
      hessian[k][k] = 1 / INVERSE_REGULARISATION;
    }
    inputs.forEach((x, j) => {
      const p = logistic(exponent(x, parameters)), error = weights[j] * (p - (labels[j] ? 1 : 0)), curvature = weights[j] * p * (1 - p);
      for (let a = 0; a < size; a++) {
        const xa = a < width ? x[a] : 1, product = curvature * xa, line = hessian[a];
        gradient[a] += error * xa;
        for (let b = 0; b <= a; b++) line[b] += product * (b < width ? x[b] : 1);
      }
    });
    if (gradient.every((g) => Math.abs(g) < GRADIENT)) break;
    const direction = solve(hessian, gradient);
    let factor = 1, next, value;
    do {
      next = parameters.map((p, k) => p - factor * direction[k]);
      value = loss(next);
      factor /= 2;
    } while (value > least && factor > 1e-12);
    parameters.set(next);
    least = value;
  }
  return { coefficients: parameters.slice(0, width), intercept: parameters[width] };
}

// Solves a symmetric, positive definite system by Cholesky's method; `matrix` has its
// lower triangle, and is overwritten.
function solve(matrix, right) {
  const size = right.length, found = Float64Array.from(right);
  for (let a = 0; a < size; a++) for (let b = 0; b <= a; b++) {
    let sum = matrix[a][b];
    for (let k = 0; k < b; k++) sum -= matrix[a][k] * matrix[b][k];
    matrix[a][b] = a === b ? Math.sqrt(Math.max(sum, 1e-300)) : sum / matrix[b][b];
  }
  for (let a = 0; a < size; a++) {
    for (let k = 0; k < a; k++) found[a] -= matrix[a][k] * found[k];
    found[a] /= matrix[a][a];
  }
  for (let a = size - 1; a >= 0; a--) {
    for (let k = a + 1; k < size; k++) found[a] -= matrix[k][a] * found[k];
    found[a] /= matrix[a][a];
  }
  return found;
}

function scoresOf(points, { coefficients, intercept }) {
  const { values, width, scales } = points, scores = new Float64Array(rowCount(points));
  const factors = coefficients.map((c, k) => c * scales[k]);
  for (let row = 0, at = 0; row < scores.length; row++) {
    let sum = intercept;
    for (let k = 0; k < width; k++) sum += factors[k] * values[at++];
    scores[row] = logistic(sum);
  }
  return scores;
}

// The unmarked rows with the smallest keys, in their order; equal keys by row.
function smallest(keyOf, total, marks, number) {
  const keys = new Float64Array(total);
  for (let row = 0; row < total; row++) keys[row] = marks.has(row) ? Infinity : keyOf(row);
  const limit = keys.slice().sort()[Math.min(number, total) - 1], rows = [];
  for (let row = 0; row < total; row++) if (keys[row] <= limit && keys[row] < Infinity) rows.push(row);
  return rows.sort((a, b) => keys[a] - keys[b] || a - b).slice(0, number);
}

const mostLikely = (scores, marks, number) => smallest((row) => -scores[row], scores.length, marks, number);

function mostInformative(points, scores, marks, number) {
  const candidates = smallest((row) => Math.abs(scores[row] - 0.5), scores.length, marks, CANDIDATES * number);
  const places = candidates.map((row) => coordinates(points, row)), chosen = [];
  const distances = new Float64Array(candidates.length).fill(Infinity);
  const gain = (k) => distances[k] * (1 - 2 * Math.abs(scores[candidates[k]] - 0.5)) ** 2;
  while (chosen.length < Math.min(number, candidates.length)) {
    let best = 0;
    if (chosen.length) for (let k = 1; k < distances.length; k++) if (gain(k) > gain(best)) best = k;
    chosen.push(candidates[best]);
    places.forEach((place, k) => {
      let sum = 0;
      for (let c = 0; c < place.length; c++) sum += (place[c] - places[best][c]) ** 2;
      distances[k] = Math.min(distances[k], sum);
    });
    distances[best] = -1;
  }
  return chosen;
}

if (typeof module !== "undefined")
  module.exports = { findTargets, fitTarget, scoresOf, mostLikely, mostInformative, backgroundRows };
