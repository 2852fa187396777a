// One step of an optimizer whose update is -alpha (m + beta f(features)), in place, for all tensors of a model: f is a
// stack of dense layers on eight features of every entry (parameter, gradient, six momenta), divided by their root mean
// square over the tensor, and m is the nominal momentum.
//
// Two passes over memory, both in blocks that fit a cache: the first moves the momenta and sums squares, the second reads
// the features, runs the layers and writes parameter and nominal momentum.
//
// Compiled with what pointwise_stack.cpp needs, WIDTHS = 8, ..., 1, and DECAYS, those of the momenta.
// Legend: T tensors, N entries of a tensor, P entries of a block.

#include "../unf/pointwise_stack.cpp"

#include <algorithm>
#include <cmath>
#include <vector>

constexpr REAL DECAY[] = {DECAYS};
constexpr int MOMENTA = sizeof(DECAY) / sizeof(REAL), FEATURES = MOMENTA + 2;
constexpr int64_t CHUNK = 64 * P;  // entries of which one thread sums the squares, whatever the number of threads
constexpr int64_t GROUP = 1 << 16;  // entries of small tensors that both passes go over before the next ones
static_assert(WIDTH[0] == FEATURES && WIDTH[L] == 1, "features in, one number out");

struct Tensor {
  int64_t size, rank;
  REAL *param, *momentum, *momenta;  // momenta: (MOMENTA, size)
  const REAL* grad;
  REAL rate, keep;  // param <- keep * param + rate * update
};

static inline void write(const REAL* from, int64_t count, REAL* to) { memcpy(to, from, sizeof(REAL) * count); }

template <bool CLAMP>
static inline Vector clamped(Vector x) {
  if constexpr (!CLAMP) return x;
  const Vector one = 1 + Vector{};
  x = x > one ? one : x;
  return x < -one ? -one : x;  // NaN stays NaN
}

// moves the momenta of entries [first, first + count) and adds up the squares of all features
template <bool CLAMP>
static void move(const Tensor& t, int64_t first, int64_t count, double* squares) {
  Vector sums[FEATURES] = {};
  for (int64_t start = first; start < first + count; start += P) {
    const int64_t own = first + count - start < P ? first + count - start : P;
    Vector param[VECTORS], grad[VECTORS], momentum[VECTORS];
    read(t.param + start, 1, own, (REAL*)param);
    read(t.grad + start, 1, own, (REAL*)grad);
    for (int v = 0; v < VECTORS; v++) {
      const Vector p = clamped<CLAMP>(param[v]), g = clamped<CLAMP>(grad[v]);
      sums[0] += p * p;
      sums[1] += g * g;
    }
    for (int k = 0; k < MOMENTA; k++) {
      REAL* place = t.momenta + k * t.size + start;
      read(place, 1, own, (REAL*)momentum);
      for (int v = 0; v < VECTORS; v++) {
        momentum[v] = DECAY[k] * momentum[v] + (1 - DECAY[k]) * grad[v];
        const Vector m = clamped<CLAMP>(momentum[v]);
        sums[2 + k] += m * m;
      }
      write((REAL*)momentum, own, place);
    }
  }
  for (int c = 0; c < FEATURES; c++) {
    squares[c] = 0;
    for (int i = 0; i < P / VECTORS; i++) squares[c] += sums[c][i];
  }
}

// entries [first, first + count), at most a block: features, layers, update
template <bool CLAMP>
static void update(const Tensor& t, int64_t first, int64_t count, const REAL* scales, const REAL* const* weights,
                   const REAL* const* biases, REAL alpha, REAL beta, REAL gamma) {
  Vector start[FEATURES * VECTORS], scratch[2][widest() * VECTORS], param[VECTORS], grad[VECTORS], momentum[VECTORS];
  read(t.param + first, 1, count, (REAL*)param);
  read(t.grad + first, 1, count, (REAL*)grad);
  read(t.momentum + first, 1, count, (REAL*)momentum);
  for (int k = 0; k < MOMENTA; k++)
    read(t.momenta + k * t.size + first, 1, count, (REAL*)(start + (2 + k) * VECTORS));
  for (int v = 0; v < VECTORS; v++) {
    start[v] = param[v];
    start[VECTORS + v] = grad[v];
  }
  for (int c = 0; c < FEATURES; c++)
    for (int v = 0; v < VECTORS; v++) start[c * VECTORS + v] = clamped<CLAMP>(start[c * VECTORS + v]) * scales[c];
  const Vector* end = layers<0>(start, weights, biases, 0, scratch, false);
  for (int v = 0; v < VECTORS; v++) {
    momentum[v] = gamma * momentum[v] + (1 - gamma) * grad[v];
    param[v] = t.keep * param[v] + t.rate * (-alpha * (momentum[v] + beta * end[v]));
  }
  write((REAL*)param, count, t.param + first);
  write((REAL*)momentum, count, t.momentum + first);
}

// one over the root mean square of each feature
template <bool CLAMP>
static void scale(const Tensor& t, const double* sums, REAL* scales) {
  double all = 0;
  for (int c = 0; c < FEATURES; c++) all += sums[c] / FEATURES;
  for (int c = 0; c < FEATURES; c++) {
    const double mean = (CLAMP ? all : sums[c]) / t.size;
    scales[c] = !CLAMP && t.rank == 0 ? 1 : 1 / std::sqrt((CLAMP ? 1e-5 : 1e-12) + mean);
  }
}

// both passes over a few tensors
template <bool CLAMP>
static void step(const Tensor* tensors, int64_t T, const REAL* const* weights, const REAL* const* biases, REAL alpha,
                 REAL beta, REAL gamma, int num_threads) {
  struct Piece {
    int64_t tensor, first, count;
  };
  std::vector<Piece> pieces;
  for (int64_t t = 0; t < T; t++)
    for (int64_t first = 0; first < tensors[t].size; first += CHUNK)
      pieces.push_back({t, first, std::min(CHUNK, tensors[t].size - first)});
  const int64_t num_pieces = pieces.size();
  std::vector<double> squares(num_pieces * FEATURES), sums(T * FEATURES);
  std::vector<REAL> scales(T * FEATURES);
#pragma omp parallel for num_threads(num_threads) schedule(static)
  for (int64_t i = 0; i < num_pieces; i++)
    move<CLAMP>(tensors[pieces[i].tensor], pieces[i].first, pieces[i].count, &squares[i * FEATURES]);
  for (int64_t i = 0; i < num_pieces; i++)
    for (int c = 0; c < FEATURES; c++) sums[pieces[i].tensor * FEATURES + c] += squares[i * FEATURES + c];
  for (int64_t t = 0; t < T; t++) scale<CLAMP>(tensors[t], &sums[t * FEATURES], &scales[t * FEATURES]);
#pragma omp parallel for num_threads(num_threads) schedule(static)
  for (int64_t i = 0; i < num_pieces; i++)
    for (int64_t at = 0; at < pieces[i].count; at += P)
      update<CLAMP>(tensors[pieces[i].tensor], pieces[i].first + at, std::min((int64_t)P, pieces[i].count - at),
                    &scales[pieces[i].tensor * FEATURES], weights, biases, alpha, beta, gamma);
}

// joint: features are clamped to [-1, 1] and share one root mean square; otherwise each has its own
extern "C" void momentum_step(int64_t T, const int64_t* sizes, const int64_t* ranks, REAL* const* params,
                              const REAL* const* grads, REAL* const* momentum, REAL* const* momenta,
                              const double* rates, const double* keeps, const REAL* const* weights,
                              const REAL* const* biases, double alpha, double beta, double gamma, int joint,
                              int num_threads) {
  std::vector<Tensor> tensors;
  int64_t entries = 0;
  for (int64_t t = 0; t < T; t++) {
    tensors.push_back(
        {sizes[t], ranks[t], params[t], momentum[t], momenta[t], grads[t], (REAL)rates[t], (REAL)keeps[t]});
    entries += sizes[t];
    if (entries >= GROUP || t == T - 1) {
      (joint ? step<true> : step<false>)(tensors.data(), tensors.size(), weights, biases, alpha, beta, gamma,
                                         num_threads);
      tensors.clear();
      entries = 0;
    }
  }
}
