// Dense layers on the entries of a tensor, channels in the lanes of vectors: a tile of entries keeps the outputs of a
// layer in registers while its inputs are broadcast. The same arithmetic for an entry wherever it lies in a block.
//
// Compiled with REAL (float or double), SIZE (bytes of REAL) and WIDTHS (channels before, between and after the layers).
// Legend: C channels, L layers, V vectors of channels, E entries of a tile, P entries of a block.

#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64, ACCUMULATORS = 24;  // of 32 registers
#elif defined(__AVX__)
constexpr int VECTOR_BYTES = 32, ACCUMULATORS = 12;  // of 16 registers
#else
constexpr int VECTOR_BYTES = 16, ACCUMULATORS = 12;
#endif

extern "C" int vector_bits() { return 8 * VECTOR_BYTES; }  // what the processor of the build has, for logs

typedef REAL Vector __attribute__((vector_size(VECTOR_BYTES)));
typedef REAL Anywhere __attribute__((vector_size(VECTOR_BYTES), aligned(SIZE), may_alias));  // at any address

constexpr int WIDTH[] = {WIDTHS};
constexpr int L = sizeof(WIDTH) / sizeof(int) - 1;
constexpr int LANES = VECTOR_BYTES / SIZE;
constexpr int P = 48;  // a multiple of LANES and of the entries of every tile

constexpr int vectors(int channels) { return (channels + LANES - 1) / LANES; }
constexpr int ROW = vectors(WIDTH[L]);  // vectors of the outputs of an entry

constexpr int widest() {
  int width = 0;
  for (int w : WIDTH) width = vectors(w) > width ? vectors(w) : width;
  return width;
}

constexpr int num_packed() {
  int count = 0;
  for (int l = 0; l < L; l++) count += (WIDTH[l] + 1) * vectors(WIDTH[l + 1]);
  return count;
}

// Averages of gradients that have become zero fall below the smallest normal number, where a product takes a hundred
// times as long. While this lives, such numbers count as zero in its thread.
class TinyIsZero {
#if defined(__SSE__)
  const unsigned before = _mm_getcsr();

 public:
  TinyIsZero() { _mm_setcsr(before | 0x8040); }
  ~TinyIsZero() { _mm_setcsr(before); }
#else
 public:
  TinyIsZero() {}
#endif
};

// the layers of one chain in vectors, zeros behind the last channel: bias, then weight (C_l, C_{l+1}), of each layer
struct Stack {
  Vector packed[num_packed()];

  void pack(const REAL* const* weights, const REAL* const* biases) {
    Vector* to = packed;
    for (int l = 0; l < L; l++) {
      to = pack_row(biases[l], WIDTH[l + 1], to);
      for (int c = 0; c < WIDTH[l]; c++) to = pack_row(weights[l] + (int64_t)c * WIDTH[l + 1], WIDTH[l + 1], to);
    }
  }

  static Vector* pack_row(const REAL* row, int channels, Vector* to) {
    to[vectors(channels) - 1] = Vector{};
    memcpy(to, row, sizeof(REAL) * channels);
    return to + vectors(channels);
  }
};

// What Packed, a Stack or something around one, makes of the layers of each of M chains;
// weights[l]: (M, C_l, C_l+1), biases[l]: (M, C_l+1).
template <class Packed>
static std::vector<Packed> packed_chains(int64_t M, const REAL* const* weights, const REAL* const* biases) {
  std::vector<Packed> chains(M);
  for (int64_t m = 0; m < M; m++) {
    const REAL *weight[L], *bias[L];
    for (int l = 0; l < L; l++) {
      weight[l] = weights[l] + m * WIDTH[l] * WIDTH[l + 1];
      bias[l] = biases[l] + m * WIDTH[l + 1];
    }
    chains[m].pack(weight, bias);
  }
  return chains;
}

// between the layers of a block
struct Scratch {
  Vector rows[2][P * widest()];
};

// what a layer multiplies with: row c of the outputs of channel c lies at rows + c * stride, in whole vectors
struct Matrix {
  const REAL* rows;
  int64_t stride;
};

// what a layer adds to: of entry e at rows + e * stride, in vectors; a bias has stride 0
struct Start {
  const Vector* rows;
  int64_t stride;
};

// V vectors of the outputs of E entries, the first of which is vector `first`; channel c of entry e lies at
// in[e * entry_stride + c * channel_stride]
template <int C_IN, int C_OUT, int V, int E>
static inline void tile(const REAL* in, int64_t entry_stride, int64_t channel_stride, Start start, Matrix matrix,
                        int first, Vector* out, REAL least) {
  constexpr int STEP = vectors(C_OUT);
  const Vector* begin = start.rows + first;
  const REAL* weight = matrix.rows + first * LANES;
  out += first;
  Vector sum[E][V];
#pragma GCC unroll 24
  for (int e = 0; e < E; e++)
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) sum[e][v] = begin[e * start.stride + v];
  for (int c = 0; c < C_IN; c++)
#pragma GCC unroll 24
    for (int e = 0; e < E; e++) {
      const REAL x = in[e * entry_stride + c * channel_stride];
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) sum[e][v] += x * *(const Anywhere*)(weight + c * matrix.stride + v * LANES);
    }
  const Vector floor = least - Vector{};
#pragma GCC unroll 24
  for (int e = 0; e < E; e++)
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) out[e * STEP + v] = sum[e][v] < floor ? floor : sum[e][v];  // NaN stays NaN
}

// the entries of a tile with V vectors of each
constexpr int entries(int v) { return ACCUMULATORS / v; }

// The first count entries of a block through one layer, rounded up to whole tiles; out is (P, vectors(C_OUT)). One entry by
// itself is a tile of its own.
template <int C_IN, int C_OUT, bool ONE = false>
static inline void layer(const REAL* in, int64_t entry_stride, int64_t channel_stride, Start start, Matrix matrix,
                         Vector* out, int64_t count, bool relu) {
  constexpr int STEP = vectors(C_OUT), V = STEP > 4 ? 4 : STEP, E = ONE ? 1 : entries(V), REST = STEP % V;
  const REAL least = relu ? 0 : -std::numeric_limits<REAL>::infinity();
  for (int64_t first = 0; first < count; first += E) {
    const REAL* here = in + first * entry_stride;
    const Start begin{start.rows + first * start.stride, start.stride};
    Vector* to = out + first * STEP;
    for (int v = 0; v + V <= STEP; v += V)
      tile<C_IN, C_OUT, V, E>(here, entry_stride, channel_stride, begin, matrix, v, to, least);
    if constexpr (REST > 0)
      tile<C_IN, C_OUT, REST, E>(here, entry_stride, channel_stride, begin, matrix, STEP - REST, to, least);
  }
}

// layers I to L - 1; planes is (WIDTH[0], P); the result is (P, ROW)
template <int I = 0>
static inline const Vector* layers(const REAL* planes, const Vector* packed, Scratch& scratch, int64_t count,
                                   bool final_relu) {
  if constexpr (I == L) {
    return scratch.rows[(L - 1) % 2];
  } else {
    constexpr int C_IN = WIDTH[I], C_OUT = WIDTH[I + 1];
    Vector* out = scratch.rows[I % 2];
    const bool relu = I + 1 < L || final_relu;
    const Start bias{packed, 0};
    const Matrix matrix{(const REAL*)(packed + vectors(C_OUT)), vectors(C_OUT) * LANES};
    if constexpr (I == 0)
      layer<C_IN, C_OUT>(planes, 1, P, bias, matrix, out, count, relu);
    else
      layer<C_IN, C_OUT>((const REAL*)scratch.rows[(I + 1) % 2], vectors(C_IN) * LANES, 1, bias, matrix, out, count,
                         relu);
    return layers<I + 1>(planes, packed + (C_IN + 1) * vectors(C_OUT), scratch, count, final_relu);
  }
}

// lanes FIRST, FIRST + 2, ... of x and then of y
template <int FIRST, int... I>
static inline Vector every_second(Vector x, Vector y, std::integer_sequence<int, I...>) {
#if defined(__clang__)
  return __builtin_shufflevector(x, y, (FIRST + 2 * I)...);
#else
  typedef decltype(Vector{} < Vector{}) Mask;
  return __builtin_shuffle(x, y, Mask{(FIRST + 2 * I)...});
#endif
}

// the product of every entry of a block with one column (C_L,) of V vectors: entry by entry in the lanes
template <int V>
static inline void dots(const Vector* rows, const Vector* column, int64_t count, REAL* to) {
  const std::make_integer_sequence<int, LANES> lanes;
  for (int64_t first = 0; first < count; first += LANES) {
    Vector sum[LANES];
    for (int e = 0; e < LANES; e++) {
      sum[e] = rows[(first + e) * V] * column[0];
      for (int v = 1; v < V; v++) sum[e] += rows[(first + e) * V + v] * column[v];
    }
#pragma GCC unroll 4
    for (int left = LANES / 2; left > 0; left /= 2)
#pragma GCC unroll 8
      for (int e = 0; e < left; e++)
        sum[e] = every_second<0>(sum[2 * e], sum[2 * e + 1], lanes) + every_second<1>(sum[2 * e], sum[2 * e + 1], lanes);
    memcpy(to + first, sum, sizeof(Vector));
  }
}

// A block of P numbers. By vectors: what memcpy stores in halves of them would wait to be loaded as a whole.
static inline void copy_block(const REAL* from, REAL* to) {
  for (int v = 0; v < P; v += LANES) *(Anywhere*)(to + v) = *(const Anywhere*)(from + v);
}

// entries [first, first + count) of one channel into a plane of P, zeros behind them
static inline void read(const REAL* from, int64_t stride, int64_t count, REAL* to) {
  if (stride == 1 && count == P) return copy_block(from, to);
  for (int64_t j = 0; j < P; j++) to[j] = j < count ? from[j * stride] : 0;
}

// the first count of P numbers
static inline void write(const REAL* from, int64_t count, REAL* to) {
  if (count == P) return copy_block(from, to);
  memcpy(to, from, sizeof(REAL) * count);
}
