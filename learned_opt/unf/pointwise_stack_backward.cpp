// The backward pass of a stack of dense layers with ReLU between them, on every entry of every tensor of every chain.
// A block of P entries passes through all layers, and its gradient back through them, while both lie in the caches.
//
// Compiled with what dense.h needs.
// Legend: M chains, T tensors, N entries of a tensor, L layers, C channels, P entries of a block.

#include "dense.h"

#include <algorithm>
#include <vector>

constexpr int64_t SEGMENTS = 8;  // sums of a chain, made apart and then added: the same for any number of threads

// rows of a matrix with so many channels, rounded up to whole tiles
constexpr int whole_tiles(int rows, int channels) {
  const int v = vectors(channels) > 4 ? 4 : vectors(channels), e = entries(v);
  return (rows + e - 1) / e * e;
}

constexpr int weights_before(int layer) {
  int count = 0;
  for (int l = 0; l < layer; l++) count += whole_tiles(WIDTH[l], WIDTH[l + 1]) * vectors(WIDTH[l + 1]);
  return count;
}

constexpr int transposed_before(int layer) {
  int count = 0;
  for (int l = 0; l < layer; l++) count += WIDTH[l + 1] * vectors(WIDTH[l]);
  return count;
}

// sums over entries: of the weights (C_l, C_l+1), and of the biases
struct Sums {
  Vector weights[weights_before(L)];
  Vector biases[L][widest()];
};

// the weights of one chain, as they are and transposed
struct Layers {
  Stack stack;
  Vector transposed[transposed_before(L)];  // (C_l+1, C_l) of each layer

  void pack(const REAL* const* weights, const REAL* const* biases) {
    stack.pack(weights, biases);
    for (int l = 0; l < L; l++) {
      const int step = vectors(WIDTH[l]) * LANES;
      REAL* to = (REAL*)(transposed + transposed_before(l));
      std::fill_n(to, WIDTH[l + 1] * step, REAL(0));
      for (int c = 0; c < WIDTH[l]; c++)
        for (int o = 0; o < WIDTH[l + 1]; o++) to[o * step + c] = weights[l][(int64_t)c * WIDTH[l + 1] + o];
    }
  }
};

// What a block needs; whole tiles read, and drop, a little more than its numbers.
struct Block {
  alignas(VECTOR_BYTES) REAL planes[whole_tiles(WIDTH[0], WIDTH[1]) * P];
  Vector activations[L][P * widest() + ACCUMULATORS];
  Vector delta[2][P * widest()];
};

template <int I = 0>
static inline void forward(Block& block, const Vector* packed, bool final_relu) {
  if constexpr (I < L) {
    constexpr int C_IN = WIDTH[I], C_OUT = WIDTH[I + 1];
    const Start bias{packed, 0};
    const Matrix matrix{(const REAL*)(packed + vectors(C_OUT)), vectors(C_OUT) * LANES};
    const bool relu = I + 1 < L || final_relu;
    if constexpr (I == 0)
      layer<C_IN, C_OUT>(block.planes, 1, P, bias, matrix, block.activations[I], P, relu);
    else
      layer<C_IN, C_OUT>((const REAL*)block.activations[I - 1], vectors(C_IN) * LANES, 1, bias, matrix,
                         block.activations[I], P, relu);
    forward<I + 1>(block, packed + (C_IN + 1) * vectors(C_OUT), final_relu);
  }
}

// from delta[I % 2], of the outputs of layer I, to that of its inputs, (P, vectors(C_I)) in the other one
template <int I = L - 1>
static inline void backward(Block& block, const Vector* transposed, Sums& sums, bool final_relu) {
  if constexpr (I >= 0) {
    constexpr int C_IN = WIDTH[I], C_OUT = WIDTH[I + 1], STEP = vectors(C_OUT);
    static const Vector zeros[widest()] = {};
    Vector* delta = block.delta[I % 2];

    const Vector one = REAL(1) - Vector{};
    if (I + 1 < L || final_relu)  // a product, so that NaN stays NaN
      for (int i = 0; i < P * STEP; i++) delta[i] *= block.activations[I][i] > 0 ? one : Vector{};
    for (int e = 0; e < P; e++)
      for (int v = 0; v < STEP; v++) sums.biases[I][v] += delta[e * STEP + v];

    // inputs transposed times delta: what a layer does, with the entries as channels
    Vector* sum = sums.weights + weights_before(I);
    const Start start{sum, STEP};
    const Matrix rows{(const REAL*)delta, STEP * LANES};
    if constexpr (I == 0)
      layer<P, C_OUT>(block.planes, P, 1, start, rows, sum, C_IN, false);
    else
      layer<P, C_OUT>((const REAL*)block.activations[I - 1], 1, vectors(C_IN) * LANES, start, rows, sum, C_IN, false);

    const Matrix matrix{(const REAL*)(transposed + transposed_before(I)), vectors(C_IN) * LANES};
    layer<C_OUT, C_IN>((const REAL*)delta, STEP * LANES, 1, Start{zeros, 0}, matrix, block.delta[(I + 1) % 2], P, false);
    backward<I - 1>(block, transposed, sums, final_relu);
  }
}

// inputs, strides, weights, biases as in pointwise_stack; gradients[t]: (M, N_t, C_L); to_inputs[t]: (M, N_t, C_0);
// to_weights[l]: (M, C_l, C_l+1); to_biases[l]: (M, C_l+1).
extern "C" void pointwise_stack_backward(int64_t M, int64_t T, const int64_t* N, const REAL* const* inputs,
                                         const int64_t* strides, const REAL* const* weights, const REAL* const* biases,
                                         const REAL* const* gradients, REAL* const* to_inputs, REAL* const* to_weights,
                                         REAL* const* to_biases, int final_relu, int num_threads) {
  int64_t num_blocks = 0;  // of one chain
  for (int64_t t = 0; t < T; t++) num_blocks += (N[t] + P - 1) / P;
  const std::vector<Layers> chains = packed_chains<Layers>(M, weights, biases);

  std::vector<Sums> sums(M * SEGMENTS);  // zeros
#pragma omp parallel for num_threads(num_threads) schedule(static)
  for (int64_t index = 0; index < M * SEGMENTS; index++) {
    const TinyIsZero tiny_is_zero;
    const int64_t m = index / SEGMENTS, segment = index % SEGMENTS;
    Block block = {};
    for (int64_t b = segment * num_blocks / SEGMENTS; b < (segment + 1) * num_blocks / SEGMENTS; b++) {
      int64_t t = 0, number = b;
      while (number >= (N[t] + P - 1) / P) number -= (N[t++] + P - 1) / P;
      const int64_t first = number * P, count = N[t] - first < P ? N[t] - first : P;

      const int64_t* stride = strides + 3 * t;
      const REAL* input = inputs[t] + m * stride[0] + first * stride[1];
      for (int c = 0; c < WIDTH[0]; c++) read(input + c * stride[2], stride[1], count, block.planes + c * P);
      Vector* delta = block.delta[(L - 1) % 2];
      std::fill_n(delta, P * ROW, Vector{});  // what no entry has counts nothing
      const REAL* gradient = gradients[t] + (m * N[t] + first) * WIDTH[L];
      for (int64_t e = 0; e < count; e++) memcpy(delta + e * ROW, gradient + e * WIDTH[L], sizeof(REAL) * WIDTH[L]);

      forward(block, chains[m].stack.packed, final_relu);
      backward(block, chains[m].transposed, sums[index], final_relu);
      REAL* to = to_inputs[t] + (m * N[t] + first) * WIDTH[0];
      for (int64_t e = 0; e < count; e++)
        memcpy(to + e * WIDTH[0], block.delta[1] + e * vectors(WIDTH[0]), sizeof(REAL) * WIDTH[0]);
    }
  }

  for (int64_t m = 0; m < M; m++)
    for (int l = 0; l < L; l++) {
      const int step = vectors(WIDTH[l + 1]) * LANES;
      for (int64_t segment = 0; segment < SEGMENTS; segment++) {
        const Sums& part = sums[m * SEGMENTS + segment];
        const REAL* weight = (const REAL*)(part.weights + weights_before(l));
        const REAL* bias = (const REAL*)part.biases[l];
        for (int o = 0; o < WIDTH[l + 1]; o++) {
          REAL* to = to_biases[l] + m * WIDTH[l + 1] + o;
          *to = segment ? *to + bias[o] : bias[o];
        }
        for (int c = 0; c < WIDTH[l]; c++)
          for (int o = 0; o < WIDTH[l + 1]; o++) {
            REAL* to = to_weights[l] + (m * WIDTH[l] + c) * WIDTH[l + 1] + o;
            *to = segment ? *to + weight[c * step + o] : weight[c * step + o];
          }
      }
    }
}
