// A layer that mixes tensors: means of rows, products at reduced shapes, and a product for each entry of a tensor, which
// adds what arrives there at reduced shapes.
//
// Legend: T tensors, K sources, D targets of a group, C channels, P rows of a block. Starts and strides count rows.

#pragma once

#include "program.h"

// the coefficients of a layer for one chain: of each group (K, C_in + shared, D, C_out), of each tensor a bias or null
struct Coefficients {
  const REAL *const *groups, *const *biases, *shared;
  int64_t num_shared;
};

// what layers work on, for one chain
struct Arena {
  // those of a layer's inputs and outputs in turns
  std::vector<Vector> rows[2], sources[2];
  std::vector<Vector> targets, constants, packed;

  void fit(const Program& program) {
    for (int i = 0; i < 2; i++) {
      rows[i].resize((program.num_rows + P) * widest());  // tiles read a little further
      sources[i].resize((program.num_source_rows + P) * widest());
    }
    targets.resize((program.num_target_rows + P) * widest());
    constants.resize(program.products.size() * widest());
  }
};

// A layer takes the rows of tensors and the means over each of their axes from one half of the arena, and leaves them in
// the other half; the last one writes what it makes.
template <int I>
struct Layer {
  static constexpr int C_IN = WIDTH[I], C_OUT = WIDTH[I + 1], V_IN = vectors(C_IN), V_OUT = vectors(C_OUT);
  static constexpr bool LAST = I + 1 == L;
  static constexpr bool PACKS = C_OUT % LANES != 0;  // otherwise rows of coefficients are whole vectors
  static constexpr bool DOTS = LAST && 2 * C_OUT * (V_IN + 3) <= C_IN * V_OUT;  // fewer operations than a tile

  const Program& program;
  const Coefficients& coefficients;
  Arena& arena;
  const Team& team;
  REAL* const* results;  // of each tensor, (N, C_L)

  Vector* inputs() const { return arena.rows[I % 2].data(); }
  Vector* outputs() const { return arena.rows[(I + 1) % 2].data(); }
  Vector* sources() const { return arena.sources[I % 2].data(); }

  void run() const {
    const int64_t num_products = program.products.size();
    if (PACKS && team.rank == 0) arena.packed.resize(program.num_coefficients * C_IN * V_OUT);
    team.wait();
    for (int64_t i = team.rank; i < num_products; i += team.size) prepare(i);
    read_tables();
    team.wait();
    for (int64_t i = team.rank; i < program.num_reduced; i += team.size) run_blocks(i, {0, 1});
    team.wait();
    for (const Walk& walk : program.merges)
      if (is_mine(walk.tensor)) add<V_OUT>(walk, arena.targets.data(), arena.targets.data());
    team.wait();
    if (!LAST) begin_passes<V_OUT>(program, arena.sources[(I + 1) % 2].data(), team);
    for (int64_t i = program.num_reduced; i < num_products; i++) run_blocks(i, team);
    team.wait();
    if (!LAST && team.size > 1) run_passes<V_OUT>(program, outputs(), arena.sources[(I + 1) % 2].data(), team);
  }

  bool is_mine(int64_t tensor) const { return tensor % team.size == team.rank; }

  // what is read of tables, or of diagonals
  void read_tables() const {
    for (const Walk& walk : program.reads)
      if (is_mine(walk.tensor) && !Program::is_pass(walk))
        add<V_IN>(walk, walk.source.whole ? inputs() : sources(), sources());
  }

  const REAL* source_matrix(const Product& product, int64_t k) const {
    const int64_t columns = program.groups[product.group].num_targets * C_OUT;
    return coefficients.groups[product.group] + k * (C_IN + coefficients.num_shared) * columns + product.target * C_OUT;
  }

  Vector* packed(int64_t number, int64_t k) const {
    return arena.packed.data() + (program.coefficients[number] + k) * C_IN * V_OUT;
  }

  // what a product adds to all of its rows; and its matrices in vectors, where they are not
  void prepare(int64_t number) const {
    const Product& product = program.products[number];
    const int64_t columns = program.groups[product.group].num_targets * C_OUT;
    const int64_t num_sources = program.groups[product.group].sources.size();
    Vector* row = arena.constants.data() + number * V_OUT;
    const REAL* bias = product.output.whole ? coefficients.biases[product.tensor] : nullptr;
    row[V_OUT - 1] = Vector{};
    for (int c = 0; c < C_OUT; c++) ((REAL*)row)[c] = bias ? bias[c] : 0;
    for (int64_t k = 0; k < num_sources; k++) {
      const REAL* from = source_matrix(product, k);
      if (DOTS && product.output.whole)
        pack_columns(from, columns, packed(number, k));
      else if (PACKS)
        for (int c = 0; c < C_IN; c++) Stack::pack_row(from + c * columns, C_OUT, packed(number, k) + c * V_OUT);
      from += C_IN * columns;
      if (coefficients.num_shared) add_shared(from, columns, row);
    }
  }

  void add_shared(const REAL* from, int64_t columns, Vector* row) const {
    REAL sum[V_OUT * LANES];
    memcpy(sum, row, sizeof(sum));
    for (int64_t s = 0; s < coefficients.num_shared; s++)
      for (int c = 0; c < C_OUT; c++) sum[c] += coefficients.shared[s] * from[s * columns + c];
    memcpy(row, sum, sizeof(sum));
  }

  static void pack_columns(const REAL* from, int64_t columns, Vector* to) {
    for (int o = 0; o < C_OUT; o++, to += V_IN) {
      to[V_IN - 1] = Vector{};
      for (int c = 0; c < C_IN; c++) ((REAL*)to)[c] = from[c * columns + o];
    }
  }

  void run_blocks(int64_t number, const Team& threads) const {
    const Product& product = program.products[number];
    const int64_t count = product.size();
    for (int64_t first = threads.rank * P; first < count; first += threads.size * P) {
      const int64_t left = std::min<int64_t>(P, count - first);
      run_block(number, first, left);
      if (!LAST && product.output.whole && team.size == 1)
        run_passes<V_OUT>(program, product.tensor, outputs(), arena.sources[(I + 1) % 2].data(), first, left);
    }
  }

  // rows [first, first + count) of a product
  void run_block(int64_t number, int64_t first, int64_t count) const {
    const Product& product = program.products[number];
    const Group& group = program.groups[product.group];
    Vector begin[P * V_OUT], rest[P * V_OUT];
    Start start{arena.constants.data() + number * V_OUT, 0};
    if (!product.addends.empty()) {
      collect_addends<V_OUT>(product, arena.targets.data(), start.rows, first, count, begin);
      start = {begin, V_OUT};
    }
    if constexpr (DOTS)
      if (product.output.whole) return run_dots(number, first, count, start);

    Vector* const to =
        (product.output.whole ? outputs() : arena.targets.data()) + (product.output.start + first) * V_OUT;
    const bool is_result = LAST && product.output.whole;
    // whole tiles would write behind the last row
    Vector* const out = (count == P || count == 1) && !is_result ? to : rest;
    multiply(number, group, first, count, start, out);
    if (is_result) {
      REAL* result = results[product.tensor] + first * C_OUT;
      for (int64_t e = 0; e < count; e++) memcpy(result + e * C_OUT, out + e * V_OUT, sizeof(REAL) * C_OUT);
    } else if (out == rest) {
      std::copy(rest, rest + count * V_OUT, to);
    }
  }

  void multiply(int64_t number, const Group& group, int64_t first, int64_t count, Start start, Vector* out) const {
    const Product& product = program.products[number];
    const int64_t num_sources = group.sources.size();
    Vector gathered[P * V_IN];
    for (int64_t k = 0; k < num_sources; k++) {
      const REAL* rows = (const REAL*)find(product, group.sources[k], first, count, gathered);
      const bool relu = product.output.whole && !LAST && k + 1 == num_sources;
      const Matrix matrix = PACKS ? Matrix{(const REAL*)packed(number, k), V_OUT * LANES}
                                  : Matrix{source_matrix(product, k), group.num_targets * C_OUT};
      if (count == 1)
        layer<C_IN, C_OUT, true>(rows, V_IN * LANES, 1, start, matrix, out, count, relu);
      else
        layer<C_IN, C_OUT>(rows, V_IN * LANES, 1, start, matrix, out, count, relu);
      start = {out, V_OUT};
    }
  }

  // the same for few outputs, entries in the lanes
  void run_dots(int64_t number, int64_t first, int64_t count, Start start) const {
    const Product& product = program.products[number];
    const Group& group = program.groups[product.group];
    Vector gathered[P * V_IN], part[P / LANES], sums[C_OUT][P / LANES] = {};
    for (size_t k = 0; k < group.sources.size(); k++) {
      const Vector* rows = find(product, group.sources[k], first, count, gathered);
      for (int o = 0; o < C_OUT; o++) {
        dots<V_IN>(rows, packed(number, k) + o * V_IN, count, (REAL*)part);
        for (int v = 0; v < P / LANES; v++) sums[o][v] += part[v];
      }
    }
    REAL* result = results[product.tensor] + first * C_OUT;
    for (int64_t e = 0; e < count; e++)
      for (int o = 0; o < C_OUT; o++)
        result[e * C_OUT + o] = ((const REAL*)(start.rows + e * start.stride))[o] + ((const REAL*)sums[o])[e];
  }

  // the rows of a source in the order of a product's loop, gathered where they do not lie one behind the other
  const Vector* find(const Product& product, const Rows& source, int64_t first, int64_t count, Vector* gathered) const {
    const Vector* from = (source.whole ? inputs() : sources()) + source.start * V_IN;
    int64_t strides[MAX_RANK];
    for (int64_t a = 0; a < product.rank; a++) strides[a] = source.strides[product.order[a]];
    if (in_order(product.rank, product.sizes, strides)) return from + first * V_IN;
    collect<V_IN>(product, strides, from, first, count, gathered);
    return gathered;
  }
};

// all layers one after the other
template <int I = 0>
static void run_layers(const Program& program, const Coefficients* coefficients, Arena& arena, const Team& team,
                       REAL* const* results) {
  if constexpr (I < L) {
    Layer<I>{program, coefficients[I], arena, team, results}.run();
    run_layers<I + 1>(program, coefficients, arena, team, results);
  }
}
