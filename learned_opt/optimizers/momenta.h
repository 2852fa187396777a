// What a learned optimizer reads of every entry: parameter, gradient and momenta, divided by their root mean square over
// the tensor. Two passes: the first moves the momenta and sums squares, the second makes the features of a block.
//
// Compiled with what dense.h needs, and DECAYS, those of the momenta.
// Legend: N entries of a tensor, P entries of a block.

#pragma once

#include "../unf/dense.h"

#include <algorithm>
#include <cmath>

constexpr REAL DECAY[] = {DECAYS};
constexpr int MOMENTA = sizeof(DECAY) / sizeof(REAL), FEATURES = MOMENTA + 2;
constexpr int VECTORS = P / LANES;  // of a plane
constexpr int64_t CHUNK = 64 * P;   // entries whose squares are summed in one go, whatever the number of threads
static_assert(WIDTH[0] >= FEATURES, "features come first among the channels");

// of one tensor of one chain; momenta and moved, which may be the same, are (MOMENTA, size)
struct Source {
  int64_t size, rank;
  const REAL *param, *grad, *momenta;
  REAL* moved;
};

// joint: features are clamped to [-1, 1] and share one mean square; otherwise each has its own.
// scalars: whether those are normalised, too, each by itself.
struct Normalisation {
  double epsilon;
  bool joint, scalars;
};

template <bool CLAMP>
static inline Vector clamped(Vector x) {
  if constexpr (!CLAMP) return x;
  const Vector one = 1 + Vector{};
  x = x > one ? one : x;
  return x < -one ? -one : x;  // NaN stays NaN
}

template <bool CLAMP>
static void move(const Source& t, int64_t first, int64_t count, double* squares) {
  Vector sums[FEATURES] = {};
  for (int64_t start = first; start < first + count; start += P) {
    const int64_t left = std::min<int64_t>(P, first + count - start);
    Vector param[VECTORS], grad[VECTORS], momentum[VECTORS];
    read(t.param + start, 1, left, (REAL*)param);
    read(t.grad + start, 1, left, (REAL*)grad);
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++) {
      const Vector p = clamped<CLAMP>(param[v]), g = clamped<CLAMP>(grad[v]);
      sums[0] += p * p;
      sums[1] += g * g;
    }
#pragma GCC unroll 8
    for (int k = 0; k < MOMENTA; k++) {
      read(t.momenta + k * t.size + start, 1, left, (REAL*)momentum);
#pragma GCC unroll 8
      for (int v = 0; v < VECTORS; v++) {
        momentum[v] = DECAY[k] * momentum[v] + (1 - DECAY[k]) * grad[v];
        const Vector m = clamped<CLAMP>(momentum[v]);
        sums[2 + k] += m * m;
      }
      write((REAL*)momentum, left, t.moved + k * t.size + start);
    }
  }
  for (int c = 0; c < FEATURES; c++) {
    squares[c] = 0;
    for (int i = 0; i < LANES; i++) squares[c] += sums[c][i];
  }
}

// moves the momenta of a chunk and adds up the squares of all features: (FEATURES,)
static inline void move_momenta(const Source& t, int64_t first, int64_t count, bool joint, double* squares) {
  (joint ? move<true> : move<false>)(t, first, count, squares);
}

// one over the root mean square of each feature, from the sums of its squares
static inline void scale(const Source& t, const double* sums, const Normalisation& normalisation, REAL* scales) {
  double all = 0;
  for (int c = 0; c < FEATURES; c++) all += sums[c] / FEATURES;
  for (int c = 0; c < FEATURES; c++) {
    const double mean = (normalisation.joint ? all : sums[c]) / t.size;
    const bool as_it_is = t.rank == 0 && !normalisation.scalars;
    scales[c] = as_it_is ? 1 : 1 / std::sqrt(normalisation.epsilon + mean);
  }
}

template <bool CLAMP>
static void features(const Source& t, int64_t first, int64_t count, const REAL* scales, REAL* planes) {
  read(t.param + first, 1, count, planes);
  read(t.grad + first, 1, count, planes + P);
  for (int k = 0; k < MOMENTA; k++) read(t.moved + k * t.size + first, 1, count, planes + (2 + k) * P);
  Vector* channel = (Vector*)planes;
  for (int c = 0; c < FEATURES; c++)
    for (int v = 0; v < VECTORS; v++) channel[c * VECTORS + v] = clamped<CLAMP>(channel[c * VECTORS + v]) * scales[c];
}

// features of entries [first, first + count), at most a block: planes (FEATURES, P), zeros behind them
static inline void make_features(const Source& t, int64_t first, int64_t count, bool joint, const REAL* scales,
                                 REAL* planes) {
  (joint ? features<true> : features<false>)(t, first, count, scales, planes);
}
