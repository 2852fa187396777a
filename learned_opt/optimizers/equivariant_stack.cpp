// The learned function of an inner step whose layers mix tensors, for all tensors of all chains: momenta are moved,
// features made and put through the layers. Between the layers nothing is written but what stays in a thread's cache.
//
// Each sum is taken by one thread and in one order, so that the number of threads changes no bit.
// Compiled with what momenta.h needs; WIDTHS[0] = FEATURES + further channels.
// Legend: M chains, T tensors, G groups, N entries of a tensor, C channels, P entries of a block.

#include "momenta.h"

#include "../unf/mixing_layer.h"

#include <omp.h>

constexpr int FURTHER = WIDTH[0] - FEATURES;

// of all chains, side by side
struct Param {
  int64_t size, rank;
  const REAL *param, *grad, *momenta, *further;  // further: (FURTHER, N)
  REAL* moved;                                   // (MOMENTA, N)

  Source source(int64_t m) const {
    const int64_t first = m * size;
    return {size, rank, param + first, grad + first, momenta + MOMENTA * first, moved + MOMENTA * first};
  }
};

// an array of numbers of each chain
struct Array {
  const REAL* first;
  int64_t stride;

  const REAL* of(int64_t m) const { return first ? first + m * stride : nullptr; }
};

struct Inputs {
  std::vector<Param> params;
  std::vector<Array> theta;  // of each layer the groups, then the biases
  Array shared;
  int64_t num_shared;
  Normalisation normalisation;
  std::vector<REAL*> outputs;  // (N, C_L)
};

struct Chunk {
  int64_t param, first, count;
};

static std::vector<Chunk> chunks_of(const std::vector<Param>& params) {
  std::vector<Chunk> chunks;
  for (size_t p = 0; p < params.size(); p++)
    for (int64_t first = 0; first < params[p].size; first += CHUNK)
      chunks.push_back({(int64_t)p, first, std::min(CHUNK, params[p].size - first)});
  return chunks;
}

// what a team has in common while it works on a chain
struct Memory {
  std::vector<Chunk> chunks;
  std::vector<double> squares;  // of each chunk
  std::vector<REAL> scales;     // of each param
  std::vector<const REAL*> theta;
  std::vector<REAL*> results;
  Arena& arena;

  Memory(const Inputs& inputs, const Program& program)
      : chunks(chunks_of(inputs.params)),
        squares(chunks.size() * FEATURES),
        scales(inputs.params.size() * FEATURES),
        theta(inputs.theta.size()),
        results(inputs.outputs.size()),
        arena(of_thread()) {
    arena.fit(program);
  }

  // to what belongs to a chain
  void point_to(const Inputs& inputs, const Program& program, int64_t m) {
    for (size_t i = 0; i < theta.size(); i++) theta[i] = inputs.theta[i].of(m);
    for (size_t t = 0; t < results.size(); t++)
      results[t] = inputs.outputs[t] + m * program.tensors[t].size * WIDTH[L];
  }

 private:
  // kept from call to call, since fresh pages would cost as much as a layer
  static Arena& of_thread() {
    static thread_local Arena arena;
    return arena;
  }
};

// rows of features of a chunk
static void write_features(const Inputs& inputs, const Chunk& chunk, int64_t m, const REAL* scales, Vector* rows) {
  constexpr int V = vectors(WIDTH[0]);
  const Param& param = inputs.params[chunk.param];
  alignas(VECTOR_BYTES) REAL planes[WIDTH[0] * P];
  for (int64_t at = 0; at < chunk.count; at += P) {
    const int64_t first = chunk.first + at, count = std::min<int64_t>(P, chunk.count - at);
    make_features(param.source(m), first, count, inputs.normalisation.joint, scales, planes);
    for (int c = 0; c < FURTHER; c++)
      read(param.further + (m * FURTHER + c) * param.size + first, 1, count, planes + (FEATURES + c) * P);
    for (int64_t e = 0; e < count; e++) {
      Vector* row = rows + (first + e) * V;
      row[V - 1] = Vector{};  // sums of products go over whole vectors
      for (int c = 0; c < WIDTH[0]; c++) ((REAL*)row)[c] = planes[c * P + e];
    }
  }
}

// momenta and features of a chain
static void begin(const Inputs& inputs, const Program& program, int64_t m, Memory& memory, const Team& team) {
  const int64_t num_chunks = memory.chunks.size(), num_params = inputs.params.size();
  for (int64_t i = team.rank; i < num_chunks; i += team.size) {
    const Chunk& chunk = memory.chunks[i];
    move_momenta(inputs.params[chunk.param].source(m), chunk.first, chunk.count, inputs.normalisation.joint,
                 &memory.squares[i * FEATURES]);
  }
  team.wait();
  for (int64_t p = team.rank; p < num_params; p += team.size) {
    double sums[FEATURES] = {};
    for (int64_t i = 0; i < num_chunks; i++)
      for (int c = 0; c < FEATURES && memory.chunks[i].param == p; c++) sums[c] += memory.squares[i * FEATURES + c];
    scale(inputs.params[p].source(m), sums, inputs.normalisation, &memory.scales[p * FEATURES]);
  }
  team.wait();

  constexpr int V = vectors(WIDTH[0]);
  Vector* rows = memory.arena.rows[0].data();
  for (int64_t i = team.rank; i < num_chunks; i += team.size) {
    const Chunk& chunk = memory.chunks[i];
    write_features(inputs, chunk, m, &memory.scales[chunk.param * FEATURES], rows + program.params[chunk.param].start * V);
  }
  team.wait();
  for (const Walk& walk : program.copies)
    if (walk.tensor % team.size == team.rank) add<V>(walk, rows, rows);
  begin_passes<V>(program, memory.arena.sources[0].data(), team);
  run_passes<V>(program, rows, memory.arena.sources[0].data(), team);
  team.wait();
}

static void run_chain(const Inputs& inputs, const Program& program, int64_t m, Memory& memory, const Team& team) {
  begin(inputs, program, m, memory, team);

  const int64_t num_groups = program.groups.size(), num_tensors = program.tensors.size();
  if (team.rank == 0) memory.point_to(inputs, program, m);
  team.wait();
  Coefficients coefficients[L];
  for (int l = 0; l < L; l++) {
    const REAL* const* groups = memory.theta.data() + l * (num_groups + num_tensors);
    const bool first = l == 0 && inputs.num_shared > 0;
    coefficients[l] = {groups, groups + num_groups, first ? inputs.shared.of(m) : nullptr, first ? inputs.num_shared : 0};
  }
  run_layers(program, coefficients, memory.arena, team, memory.results.data());
  team.wait();
}

// addresses of params, grads, momenta, further channels (if any), moved momenta, each of all parameters, and of outputs;
// theta: address and stride of one chain to the next, of the groups and then the biases of each layer, and last of the
// shared channels
static Inputs find_inputs(const Program& program, const int64_t* sizes, void* const* addresses, const int64_t* theta) {
  const int64_t num_params = program.params.size();
  Inputs inputs{};
  inputs.params.resize(num_params);
  for (int64_t p = 0; p < num_params; p++) {
    Param& param = inputs.params[p];
    param.size = program.params[p].size;
    param.rank = sizes[p];
    param.param = (const REAL*)addresses[p];
    param.grad = (const REAL*)addresses[num_params + p];
    param.momenta = (const REAL*)addresses[2 * num_params + p];
    param.further = FURTHER ? (const REAL*)addresses[3 * num_params + p] : nullptr;
    param.moved = (REAL*)addresses[(FURTHER ? 4 : 3) * num_params + p];
  }
  void* const* outputs = addresses + (FURTHER ? 5 : 4) * num_params;
  for (size_t t = 0; t < program.tensors.size(); t++) inputs.outputs.push_back((REAL*)outputs[t]);

  const int64_t num_arrays = L * (program.groups.size() + program.tensors.size());
  for (int64_t i = 0; i < num_arrays; i++) inputs.theta.push_back({(const REAL*)theta[2 * i], theta[2 * i + 1]});
  inputs.shared = {(const REAL*)theta[2 * num_arrays], theta[2 * num_arrays + 1]};
  return inputs;
}

extern "C" void equivariant_stack(int64_t M, const int64_t* numbers, const int64_t* ranks, void* const* addresses,
                                  const int64_t* theta, int64_t num_shared, int joint, double epsilon, int scalars,
                                  int num_threads) {
  const Program program(numbers);
  Inputs inputs = find_inputs(program, ranks, addresses, theta);
  inputs.num_shared = num_shared;
  inputs.normalisation = {epsilon, (bool)joint, (bool)scalars};

  if (M < 4 * num_threads) {  // all threads on one chain after the other
    Memory memory(inputs, program);
#pragma omp parallel num_threads(num_threads)
    {
      const TinyIsZero tiny_is_zero;
      const Team team{omp_get_thread_num(), omp_get_num_threads()};
      for (int64_t m = 0; m < M; m++) run_chain(inputs, program, m, memory, team);
    }
    return;
  }
#pragma omp parallel num_threads(num_threads)
  {
    const TinyIsZero tiny_is_zero;
    Memory memory(inputs, program);  // which stays in the cache of its thread
#pragma omp for schedule(static)
    for (int64_t m = 0; m < M; m++) run_chain(inputs, program, m, memory, {0, 1});
  }
}
