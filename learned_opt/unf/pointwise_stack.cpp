// A stack of dense layers with ReLU between them, applied to every entry of every tensor of every chain.
// A block of P entries passes through all layers while it lies in registers and the first-level cache.
//
// Compiled with what dense.h needs.
// Legend: M chains, T tensors, N entries of a tensor, L layers, C channels, P entries of a block.

#include "dense.h"

// inputs[t]: (M, N_t, C_0) with strides[t] = (of M, of N, of C); weights[l]: (M, C_l, C_l+1); biases[l]: (M, C_l+1);
// results[t]: (M, N_t, C_L), channels last.
extern "C" void pointwise_stack(int64_t M, int64_t T, const int64_t* N, const REAL* const* inputs,
                                const int64_t* strides, const REAL* const* weights, const REAL* const* biases,
                                REAL* const* results, int final_relu, int num_threads) {
  int64_t num_blocks = 0;  // of one chain
  for (int64_t t = 0; t < T; t++) num_blocks += (N[t] + P - 1) / P;
  const std::vector<Stack> stacks = packed_chains<Stack>(M, weights, biases);
#pragma omp parallel for num_threads(num_threads) schedule(static)
  for (int64_t index = 0; index < M * num_blocks; index++) {
    const int64_t m = index / num_blocks;
    int64_t t = 0, block = index % num_blocks;
    while (block >= (N[t] + P - 1) / P) block -= (N[t++] + P - 1) / P;
    const int64_t first = block * P, count = N[t] - first < P ? N[t] - first : P;
    const int64_t* stride = strides + 3 * t;
    const REAL* input = inputs[t] + m * stride[0] + first * stride[1];
    alignas(VECTOR_BYTES) REAL planes[WIDTH[0] * P];
    Scratch scratch;
    for (int c = 0; c < WIDTH[0]; c++) read(input + c * stride[2], stride[1], count, planes + c * P);
    const REAL* end = (const REAL*)layers(planes, stacks[m].packed, scratch, count, final_relu);
    REAL* result = results[t] + (m * N[t] + first) * WIDTH[L];
    for (int64_t j = 0; j < count; j++) memcpy(result + j * WIDTH[L], end + j * ROW * LANES, sizeof(REAL) * WIDTH[L]);
  }
}
