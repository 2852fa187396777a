// The learned function of an inner step, for all tensors of all chains: momenta are moved, features made and put through
// the layers, and of the outputs (rows) only what the caller wants is written: the rows themselves, or their products with
// a few columns and their means over each axis.
//
// A piece of a tensor is summed by itself and pieces are added in their order, so that the number of threads changes no bit.
// Compiled with what momenta.h needs; WIDTHS[0] = FEATURES + further channels.
// Legend: M chains, T tensors, N entries of a tensor, C channels, Q columns, P entries of a block.

#include "momenta.h"

#include <vector>

constexpr int FURTHER = WIDTH[0] - FEATURES, MAX_RANK = 8;
constexpr int64_t SMALLEST_PIECE = 64 * P, MOST_PIECES = 8;  // of a tensor

// of all chains, side by side; null: not wanted
struct Tensor {
  int64_t size, rank, num_columns;
  const int64_t* shape;
  const REAL *param, *grad, *momenta, *further, *columns;  // further: (FURTHER, N), columns: (C_L, Q)
  REAL *moved, *rows, *dots, *means[MAX_RANK];             // moved: (MOMENTA, N), rows: (N, C_L), dots: (Q, N)
};

struct Layers {
  const REAL *weights[L], *biases[L];
  int64_t weight_strides[L], bias_strides[L];
};

// one tensor of one chain
struct Work {
  const Tensor* tensor;
  int64_t m;
  REAL scales[FEATURES];

  Source source() const {
    const Tensor& t = *tensor;
    return {t.size,
            t.rank,
            t.param + m * t.size,
            t.grad + m * t.size,
            t.momenta + m * MOMENTA * t.size,
            t.moved + m * MOMENTA * t.size};
  }
};

static int64_t piece_size(int64_t size) {
  const int64_t share = (size + MOST_PIECES - 1) / MOST_PIECES;
  return std::max(SMALLEST_PIECE, (share + P - 1) / P * P);
}

static int64_t num_pieces(int64_t size) { return (size + piece_size(size) - 1) / piece_size(size); }

static bool wants_means(const Tensor& t) { return t.rank > 0 && t.means[0]; }

static int64_t mean_size(const Tensor& t, int axis) { return t.shape[axis] ? t.size / t.shape[axis] : 0; }

static int64_t num_sums(const Tensor& t) {  // vectors, of all axes
  int64_t count = 0;
  for (int a = 0; a < t.rank && wants_means(t); a++) count += mean_size(t, a) * ROW;
  return count;
}

// adds rows of entries [first, first + count) to the sums over each axis, one behind the other
static void add_sums(const Tensor& t, int64_t first, int64_t count, const Vector* rows, Vector* sums) {
  const int64_t last = t.shape[t.rank - 1];
  int64_t inner[MAX_RANK];  // entries that one index of an axis goes over
  inner[t.rank - 1] = 1;
  for (int a = t.rank - 1; a > 0; a--) inner[a - 1] = inner[a] * t.shape[a];

  for (int64_t e = 0; e < count;) {
    const int64_t start = first + e, run = std::min(count - e, last - start % last);
    Vector* to = sums;
    for (int a = 0; a < t.rank; a++) {
      const int64_t offset = start / (inner[a] * t.shape[a]) * inner[a] + start % inner[a];
      Vector* sum = to + offset * ROW;
      const Vector* row = rows + e * ROW;
      if (a < t.rank - 1) {
        for (int64_t v = 0; v < run * ROW; v++) sum[v] += row[v];
      } else {
        Vector total[ROW];
        for (int v = 0; v < ROW; v++) total[v] = sum[v];
        for (int64_t i = 0; i < run; i++)
          for (int v = 0; v < ROW; v++) total[v] += row[i * ROW + v];
        for (int v = 0; v < ROW; v++) sum[v] = total[v];
      }
      to += mean_size(t, a) * ROW;
    }
    e += run;
  }
}

// the second pass over a piece
static void run_piece(const Work& work, int64_t piece, const Stack& stack, bool joint, Vector* sums) {
  const Tensor& t = *work.tensor;
  const Source source = work.source();
  const int64_t begin = piece * piece_size(t.size), end = std::min(t.size, begin + piece_size(t.size));
  alignas(VECTOR_BYTES) REAL planes[WIDTH[0] * P];
  Vector column[ROW], block[VECTORS];
  Scratch scratch;
  for (int64_t first = begin; first < end; first += P) {
    const int64_t count = std::min<int64_t>(P, end - first);
    make_features(source, first, count, joint, work.scales, planes);
    for (int c = 0; c < FURTHER; c++)
      read(t.further + (work.m * FURTHER + c) * t.size + first, 1, count, planes + (FEATURES + c) * P);
    const Vector* rows = layers(planes, stack.packed, scratch, count, true);

    for (int64_t q = 0; q < t.num_columns; q++) {
      const REAL* from = t.columns + work.m * WIDTH[L] * t.num_columns + q;
      column[ROW - 1] = Vector{};
      for (int c = 0; c < WIDTH[L]; c++) ((REAL*)column)[c] = from[c * t.num_columns];
      dots<ROW>(rows, column, count, (REAL*)block);
      write((REAL*)block, count, t.dots + (work.m * t.num_columns + q) * t.size + first);
    }
    if (t.rows) {
      REAL* to = t.rows + (work.m * t.size + first) * WIDTH[L];
      for (int64_t e = 0; e < count; e++) memcpy(to + e * WIDTH[L], rows + e * ROW, sizeof(REAL) * WIDTH[L]);
    }
    if (sums) add_sums(t, first, count, rows, sums);
  }
}

// writes the means over each axis, from the sums of all pieces
static void write_means(const Work& work, Vector* sums) {
  const Tensor& t = *work.tensor;
  const int64_t count = num_sums(t);
  for (int64_t piece = 1; piece < num_pieces(t.size); piece++)
    for (int64_t v = 0; v < count; v++) sums[v] += sums[piece * count + v];
  for (int a = 0; a < t.rank; a++) {
    const int64_t size = mean_size(t, a);
    const REAL length = t.shape[a];
    REAL* to = t.means[a] + work.m * size * WIDTH[L];
    for (int64_t i = 0; i < size; i++) {
      for (int v = 0; v < ROW; v++) sums[i * ROW + v] /= length;
      memcpy(to + i * WIDTH[L], sums + i * ROW, sizeof(REAL) * WIDTH[L]);
    }
    sums += size * ROW;
  }
}

static void pack(const Layers& given, int64_t m, Stack& stack) {
  const REAL *weights[L], *biases[L];
  for (int l = 0; l < L; l++) {
    weights[l] = given.weights[l] + m * given.weight_strides[l];
    biases[l] = given.biases[l] + m * given.bias_strides[l];
  }
  stack.pack(weights, biases);
}

static int64_t num_chunks(int64_t size) { return (size + CHUNK - 1) / CHUNK; }

static void move_chunk(const Work& work, int64_t chunk, bool joint, double* squares) {
  const Source source = work.source();
  move_momenta(source, chunk * CHUNK, std::min(CHUNK, source.size - chunk * CHUNK), joint, squares + chunk * FEATURES);
}

static void add_squares(Work& work, const double* squares, const Normalisation& normalisation) {
  double sums[FEATURES] = {};
  for (int64_t i = 0; i < num_chunks(work.tensor->size); i++)
    for (int c = 0; c < FEATURES; c++) sums[c] += squares[i * FEATURES + c];
  scale(work.source(), sums, normalisation, work.scales);
}

// a thread does all of a chain, which then stays in its cache
static void run_chains(int64_t M, const std::vector<Tensor>& tensors, const Layers& given,
                       const Normalisation& normalisation, int num_threads) {
#pragma omp parallel num_threads(num_threads)
  {
    const TinyIsZero tiny_is_zero;
    Stack stack;
    std::vector<double> squares;
    std::vector<Vector> sums;
#pragma omp for schedule(static)
    for (int64_t m = 0; m < M; m++) {
      pack(given, m, stack);
      for (const Tensor& tensor : tensors) {
        Work work{&tensor, m, {}};
        squares.resize(num_chunks(tensor.size) * FEATURES);
        for (int64_t i = 0; i < num_chunks(tensor.size); i++) move_chunk(work, i, normalisation.joint, squares.data());
        add_squares(work, squares.data(), normalisation);

        const int64_t count = num_sums(tensor);
        sums.assign(count * num_pieces(tensor.size), Vector{});
        for (int64_t i = 0; i < num_pieces(tensor.size); i++)
          run_piece(work, i, stack, normalisation.joint, count ? sums.data() + i * count : nullptr);
        if (count) write_means(work, sums.data());
      }
    }
  }
}

// threads share the pieces of all chains
static void run_pieces(int64_t M, const std::vector<Tensor>& tensors, const Layers& given,
                       const Normalisation& normalisation, int num_threads) {
  struct Part {
    int64_t work, number;
  };
  std::vector<Stack> stacks(M);
  std::vector<Work> works;
  std::vector<Part> chunks, pieces;
  std::vector<std::vector<double>> squares;
  std::vector<std::vector<Vector>> sums;
  for (int64_t m = 0; m < M; m++) {
    pack(given, m, stacks[m]);
    for (const Tensor& tensor : tensors) {
      const int64_t work = works.size();
      for (int64_t i = 0; i < num_chunks(tensor.size); i++) chunks.push_back({work, i});
      for (int64_t i = 0; i < num_pieces(tensor.size); i++) pieces.push_back({work, i});
      works.push_back({&tensor, m, {}});
      squares.emplace_back(num_chunks(tensor.size) * FEATURES);
      sums.emplace_back(num_sums(tensor) * num_pieces(tensor.size));
    }
  }
  const int64_t num_works = works.size(), all_chunks = chunks.size(), all_pieces = pieces.size();
#pragma omp parallel num_threads(num_threads)
  {
    const TinyIsZero tiny_is_zero;
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < all_chunks; i++)
      move_chunk(works[chunks[i].work], chunks[i].number, normalisation.joint, squares[chunks[i].work].data());
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < num_works; i++) add_squares(works[i], squares[i].data(), normalisation);
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < all_pieces; i++) {
      const Part& part = pieces[i];
      const Work& work = works[part.work];
      const int64_t count = num_sums(*work.tensor);
      run_piece(work, part.number, stacks[work.m], normalisation.joint,
                count ? sums[part.work].data() + part.number * count : nullptr);
    }
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < num_works; i++)
      if (num_sums(*works[i].tensor)) write_means(works[i], sums[i].data());
  }
}

constexpr int ROWS = 0, DOTS_AND_MEANS = 2;  // what is wanted of a tensor, as in momentum_stack.py

// The addresses of params, grads, momenta, further channels (if any), columns (of those that want some), moved momenta
// and outputs, in this order, each of all tensors. sizes: of each tensor, see momentum_stack.py.
static std::vector<Tensor> find_tensors(int64_t T, const int64_t* sizes, void* const* addresses) {
  constexpr int MEMBERS = 4 + MAX_RANK;
  int64_t num_columns = 0;
  for (int64_t t = 0; t < T; t++) num_columns += sizes[t * MEMBERS] != ROWS;
  REAL* const* column = (REAL* const*)addresses + (FURTHER ? 4 : 3) * T;
  REAL* const* moved = column + num_columns;
  REAL* const* output = moved + T;

  std::vector<Tensor> tensors(T);
  for (int64_t t = 0; t < T; t++, sizes += MEMBERS) {
    Tensor& tensor = tensors[t];
    const int64_t kind = sizes[0];
    tensor.size = sizes[1];
    tensor.rank = sizes[2];
    tensor.num_columns = sizes[3];
    tensor.shape = sizes + 4;
    tensor.param = (REAL*)addresses[t];
    tensor.grad = (REAL*)addresses[T + t];
    tensor.momenta = (REAL*)addresses[2 * T + t];
    tensor.further = FURTHER ? (REAL*)addresses[3 * T + t] : nullptr;
    tensor.moved = *moved++;
    (kind == ROWS ? tensor.rows : tensor.dots) = *output++;
    if (kind != ROWS) tensor.columns = *column++;
    for (int a = 0; a < tensor.rank && kind == DOTS_AND_MEANS; a++) tensor.means[a] = *output++;
  }
  return tensors;
}

// layers: address and stride of one chain to the next, of the weight and then the bias of each layer
extern "C" void momentum_stack(int64_t M, int64_t T, const int64_t* layers, const int64_t* sizes,
                               void* const* addresses, int joint, double epsilon, int scalars, int num_threads) {
  Layers given;
  for (int l = 0; l < L; l++, layers += 4) {
    given.weights[l] = (const REAL*)layers[0];
    given.weight_strides[l] = layers[1];
    given.biases[l] = (const REAL*)layers[2];
    given.bias_strides[l] = layers[3];
  }
  const Normalisation normalisation{epsilon, (bool)joint, (bool)scalars};
  (M < 4 * num_threads ? run_pieces : run_chains)(M, find_tensors(T, sizes, addresses), given, normalisation,
                                                  num_threads);
}
