// One step of an optimizer whose update is -alpha (m + beta f(features)), in place, for all tensors of a model: f is a
// stack of dense layers on the features of momenta.h, and m is the nominal momentum.
//
// Two passes over memory, both in blocks that fit a cache: the first moves the momenta and sums squares, the second reads
// the features, runs the layers and writes parameter and nominal momentum.
//
// Compiled with what momenta.h needs, WIDTHS = the channels before, between and after all layers but the last, which has
// one output.
// Legend: T tensors, N entries of a tensor, P entries of a block.

#include "momenta.h"

#include <vector>

constexpr int64_t GROUP = 1 << 16;  // entries of small tensors that both passes go over before the next ones

struct Tensor {
  Source source;
  REAL *param, *momentum;
  REAL rate, keep;  // param <- keep * param + rate * update
};

struct Function {
  Stack stack;
  Vector column[ROW];  // of the last layer
  REAL bias;
};

struct Nominal {
  REAL alpha, beta, gamma;
};

// entries [first, first + count), at most a block: features, layers, update
static void update(const Tensor& t, int64_t first, int64_t count, bool joint, const REAL* scales, const Function& f,
                   const Nominal& nominal) {
  alignas(VECTOR_BYTES) REAL planes[WIDTH[0] * P];
  Vector param[VECTORS], grad[VECTORS], momentum[VECTORS], learned[VECTORS];
  Scratch scratch;
  make_features(t.source, first, count, joint, scales, planes);
  dots<ROW>(layers(planes, f.stack.packed, scratch, count, true), f.column, count, (REAL*)learned);
  read(t.param + first, 1, count, (REAL*)param);
  read(t.source.grad + first, 1, count, (REAL*)grad);
  read(t.momentum + first, 1, count, (REAL*)momentum);
  for (int v = 0; v < VECTORS; v++) {
    momentum[v] = nominal.gamma * momentum[v] + (1 - nominal.gamma) * grad[v];
    const Vector direction = momentum[v] + nominal.beta * (learned[v] + f.bias);
    param[v] = t.keep * param[v] + t.rate * (-nominal.alpha * direction);
  }
  write((REAL*)param, count, t.param + first);
  write((REAL*)momentum, count, t.momentum + first);
}

// both passes over a few tensors
static void step(const Tensor* tensors, int64_t T, const Function& f, const Nominal& nominal,
                 const Normalisation& normalisation, int num_threads) {
  struct Piece {
    int64_t tensor, first, count;
  };
  std::vector<Piece> pieces;
  for (int64_t t = 0; t < T; t++)
    for (int64_t first = 0; first < tensors[t].source.size; first += CHUNK)
      pieces.push_back({t, first, std::min(CHUNK, tensors[t].source.size - first)});
  const int64_t num_pieces = pieces.size();
  std::vector<double> squares(num_pieces * FEATURES), sums(T * FEATURES);
  std::vector<REAL> scales(T * FEATURES);
#pragma omp parallel num_threads(num_threads)
  {
    const TinyIsZero tiny_is_zero;
#pragma omp for schedule(static)
    for (int64_t i = 0; i < num_pieces; i++)
      move_momenta(tensors[pieces[i].tensor].source, pieces[i].first, pieces[i].count, normalisation.joint,
                   &squares[i * FEATURES]);
#pragma omp single
    {
      for (int64_t i = 0; i < num_pieces; i++)
        for (int c = 0; c < FEATURES; c++) sums[pieces[i].tensor * FEATURES + c] += squares[i * FEATURES + c];
      for (int64_t t = 0; t < T; t++)
        scale(tensors[t].source, &sums[t * FEATURES], normalisation, &scales[t * FEATURES]);
    }
#pragma omp for schedule(static)
    for (int64_t i = 0; i < num_pieces; i++)
      for (int64_t at = 0; at < pieces[i].count; at += P)
        update(tensors[pieces[i].tensor], pieces[i].first + at, std::min<int64_t>(P, pieces[i].count - at),
               normalisation.joint, &scales[pieces[i].tensor * FEATURES], f, nominal);
  }
}

// weights[l]: (C_l, C_l+1) and biases[l]: (C_l+1,), one layer more than WIDTHS; joint, epsilon, scalars: see momenta.h
extern "C" void momentum_step(int64_t T, const int64_t* sizes, const int64_t* ranks, REAL* const* params,
                              const REAL* const* grads, REAL* const* momentum, REAL* const* momenta,
                              const double* rates, const double* keeps, const REAL* const* weights,
                              const REAL* const* biases, double alpha, double beta, double gamma, int joint,
                              double epsilon, int scalars, int num_threads) {
  const Normalisation normalisation{epsilon, (bool)joint, (bool)scalars};
  const Nominal nominal{(REAL)alpha, (REAL)beta, (REAL)gamma};
  Function f{};
  f.stack.pack(weights, biases);
  Stack::pack_row(weights[L], WIDTH[L], f.column);
  f.bias = biases[L][0];

  std::vector<Tensor> tensors;
  int64_t entries = 0;
  for (int64_t t = 0; t < T; t++) {
    const Source source{sizes[t], ranks[t], params[t], grads[t], momenta[t], momenta[t]};
    tensors.push_back({source, params[t], momentum[t], (REAL)rates[t], (REAL)keeps[t]});
    entries += sizes[t];
    if (entries >= GROUP || t == T - 1) {
      step(tensors.data(), tensors.size(), f, nominal, normalisation, num_threads);
      tensors.clear();
      entries = 0;
    }
  }
}
