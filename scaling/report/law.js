// The best division of a budget by the fitted law: what scaling.allocate does, in the browser.
// A run of D tokens and N parameters costs 6 N D operations, and serving 2 N for each token served.

const FORMS = {
  // Hoffmann et al. 2022, equation 2
  chinchilla: (p, N, D) => p.E + p.A * N ** -p.alpha + p.B * D ** -p.beta,
  // Kaplan et al. 2020, equation 1.5
  kaplan_ND: (p, N, D) => ((p.N_c / N) ** (p.alpha_N / p.alpha_D) + p.D_c / D) ** p.alpha_D,
};

const LEAST = 100; // parameters and tokens, as in scaling.allocate
const GOLDEN = (Math.sqrt(5) - 1) / 2;

// Tokens that a budget leaves to a model of N parameters.
function tokensLeft(C, N, served) {
  return (C / N - 2 * served) / 6;
}

// Where f is least between a and b: the best of a grid, then golden sections about it.
function least(f, a, b) {
  const grid = Array.from({ length: 401 }, (_, i) => a + ((b - a) * i) / 400);
  const values = grid.map(f);
  const at = values.indexOf(Math.min(...values));
  let [low, high] = [grid[Math.max(at - 1, 0)], grid[Math.min(at + 1, 400)]];
  for (let i = 0; i < 80; i++) {
    const [one, other] = [high - GOLDEN * (high - low), low + GOLDEN * (high - low)];
    if (f(one) < f(other)) high = other;
    else low = one;
  }
  return (low + high) / 2;
}

// Where f turns from at most zero (at a) to above it (at b).
function crossing(f, a, b) {
  for (let i = 0; i < 60; i++) {
    const middle = (a + b) / 2;
    if (f(middle) <= 0) a = middle;
    else b = middle;
  }
  return a;
}

// A law that can be computed here: the best N and D, the sizes nearly as good, the price of others.
function lawOf(name, parameters) {
  const of = (N, D) => FORMS[name](parameters, N, D);
  const at = (C, N, served) => {
    const D = tokensLeft(C, N, served);
    return { N, D, loss: D >= LEAST ? of(N, D) : Infinity };
  };
  const most = (C, served) => Math.log(C / (6 * LEAST + 2 * served));
  const best = (C, served = 0) => {
    const size = least((n) => at(C, Math.exp(n), served).loss, Math.log(LEAST), most(C, served));
    return at(C, Math.exp(size), served);
  };
  const flat = (C, served, tolerance) => {
    const top = best(C, served);
    const excess = (n) => at(C, Math.exp(n), served).loss - (1 + tolerance) * top.loss;
    const [least, greatest] = [Math.log(LEAST), most(C, served)];
    const end = (bound) => (excess(bound) <= 0 ? bound : crossing(excess, Math.log(top.N), bound));
    return [Math.exp(end(least)), Math.exp(end(greatest))];
  };
  // The budget with which the best division reaches this loss.
  const equivalent = (C, served, loss) => {
    const above = (c) => best(Math.exp(c), served).loss - loss;
    return Math.exp(crossing(above, Math.log(C), Math.max(Math.log(C) - 25, Math.log(LEAST ** 3))));
  };
  return { at, best, flat, equivalent };
}

// A value on a curve over C given by a table: a straight line between its points over log C.
function between(budgets, values, C) {
  const x = Math.log(C);
  let i = 1;
  while (i < budgets.length - 1 && Math.log(budgets[i]) < x) i += 1;
  const [a, b] = [Math.log(budgets[i - 1]), Math.log(budgets[i])];
  const share = Math.min(Math.max((x - a) / (b - a), 0), 1);
  return values[i - 1] + share * (values[i] - values[i - 1]);
}
