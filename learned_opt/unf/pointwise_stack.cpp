// A stack of dense layers with ReLU between them, applied to every entry of every tensor of every chain.
// A block of P entries passes through all layers while it lies in registers and the first-level cache.
//
// Compiled with REAL (float or double), SIZE (bytes of REAL) and WIDTHS (channels before, between and after the layers).
// Legend: M chains, T tensors, N entries of a tensor, L layers, C channels, P entries of a block.

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64, OUTPUTS = 8;  // 24 accumulators of 32 registers
#elif defined(__AVX__)
constexpr int VECTOR_BYTES = 32, OUTPUTS = 4;  // 12 accumulators of 16 registers
#else
constexpr int VECTOR_BYTES = 16, OUTPUTS = 4;
#endif

typedef REAL Vector __attribute__((vector_size(VECTOR_BYTES)));

constexpr int WIDTH[] = {WIDTHS};
constexpr int L = sizeof(WIDTH) / sizeof(int) - 1;
constexpr int VECTORS = 3;  // of entries in a block
constexpr int P = VECTORS * VECTOR_BYTES / SIZE;

constexpr int widest() {
  int width = 0;
  for (int w : WIDTH) width = w > width ? w : width;
  return width;
}

// B output channels of one layer; in and out are (channels, VECTORS)
template <int C_IN, int C_OUT, int B>
static inline void outputs(const Vector* in, const REAL* weight, const REAL* bias, Vector* out, bool relu) {
  Vector sum[B][VECTORS];
  for (int o = 0; o < B; o++)
    for (int v = 0; v < VECTORS; v++) sum[o][v] = bias[o] + Vector{};
  for (int i = 0; i < C_IN; i++)
#pragma GCC unroll 8
    for (int o = 0; o < B; o++)
#pragma GCC unroll 8
      for (int v = 0; v < VECTORS; v++) sum[o][v] += weight[i * C_OUT + o] * in[i * VECTORS + v];
  const Vector zero{};
  for (int o = 0; o < B; o++)
    for (int v = 0; v < VECTORS; v++)
      out[o * VECTORS + v] = relu ? (sum[o][v] < zero ? zero : sum[o][v]) : sum[o][v];  // NaN stays NaN
}

template <int C_IN, int C_OUT>
static inline void layer(const Vector* in, const REAL* weight, const REAL* bias, Vector* out, bool relu) {
  constexpr int FULL = C_OUT / OUTPUTS * OUTPUTS, REST = C_OUT % OUTPUTS;
  for (int o = 0; o < FULL; o += OUTPUTS)
    outputs<C_IN, C_OUT, OUTPUTS>(in, weight + o, bias + o, out + o * VECTORS, relu);
  if constexpr (REST > 0) outputs<C_IN, C_OUT, REST>(in, weight + FULL, bias + FULL, out + FULL * VECTORS, relu);
}

// layers I to L - 1 of chain m; returns where the last one wrote
template <int I>
static inline const Vector* layers(const Vector* in, const REAL* const* weights, const REAL* const* biases, int64_t m,
                                   Vector (*scratch)[widest() * VECTORS], bool final_relu) {
  if constexpr (I == L) {
    return in;
  } else {
    constexpr int C_IN = WIDTH[I], C_OUT = WIDTH[I + 1];
    Vector* out = scratch[I % 2];
    layer<C_IN, C_OUT>(in, weights[I] + m * C_IN * C_OUT, biases[I] + m * C_OUT, out, I + 1 < L || final_relu);
    return layers<I + 1>(out, weights, biases, m, scratch, final_relu);
  }
}

// entries [first, first + count) of one channel into a block, zeros behind them
static inline void read(const REAL* from, int64_t stride, int64_t count, REAL* to) {
  if (stride == 1 && count == P) {
    memcpy(to, from, sizeof(REAL) * P);
    return;
  }
  for (int64_t j = 0; j < P; j++) to[j] = j < count ? from[j * stride] : 0;
}

// inputs[t]: (M, N_t, C_0) with strides[t] = (of M, of N, of C); weights[l]: (M, C_l, C_l+1); biases[l]: (M, C_l+1);
// results[t]: (M, N_t, C_L), channels last.
extern "C" void pointwise_stack(int64_t M, int64_t T, const int64_t* N, const REAL* const* inputs,
                                const int64_t* strides, const REAL* const* weights, const REAL* const* biases,
                                REAL* const* results, int final_relu, int num_threads) {
  int64_t num_blocks = 0;  // of one chain
  for (int64_t t = 0; t < T; t++) num_blocks += (N[t] + P - 1) / P;
#pragma omp parallel for num_threads(num_threads) schedule(static)
  for (int64_t index = 0; index < M * num_blocks; index++) {
    const int64_t m = index / num_blocks;
    int64_t t = 0, block = index % num_blocks;
    while (block >= (N[t] + P - 1) / P) block -= (N[t++] + P - 1) / P;
    const int64_t first = block * P, count = N[t] - first < P ? N[t] - first : P;
    const int64_t* stride = strides + 3 * t;
    const REAL* input = inputs[t] + m * stride[0] + first * stride[1];
    Vector start[WIDTH[0] * VECTORS], scratch[2][widest() * VECTORS];
    for (int c = 0; c < WIDTH[0]; c++) read(input + c * stride[2], stride[1], count, (REAL*)start + c * P);
    const REAL* end = (const REAL*)layers<0>(start, weights, biases, m, scratch, final_relu);
    REAL* result = results[t] + (m * N[t] + first) * WIDTH[L];
    for (int64_t j = 0; j < count; j++)
      for (int c = 0; c < WIDTH[L]; c++) result[j * WIDTH[L] + c] = end[c * P + j];
  }
}
