// The program that program.py makes of a plan, and its walks, which add rows to others. Starts and strides count rows.

#pragma once

#include "dense.h"

#include <algorithm>
#include <vector>

constexpr int MAX_RANK = 8;

// the threads that work on one chain; each takes every size-th part of the work
struct Team {
  int rank, size;

  void wait() const {
    if (size > 1) {
#pragma omp barrier
    }
  }
};

static int64_t product_of(int64_t rank, const int64_t* sizes) {
  int64_t product = 1;
  for (int64_t a = 0; a < rank; a++) product *= sizes[a];
  return product;
}

// whether the rows of a loop lie one behind the other
static bool in_order(int64_t rank, const int64_t* sizes, const int64_t* strides) {
  int64_t natural = 1;
  for (int64_t a = rank - 1; a >= 0; natural *= sizes[a--])
    if (strides[a] != natural && sizes[a] != 1) return false;
  return true;
}

struct Rows {
  int64_t whole, start, strides[MAX_RANK];
};

struct Walk {
  int64_t tensor, rank, fresh, divisor, sizes[MAX_RANK];
  Rows source, target;
};

struct Group {
  int64_t rank, num_targets;
  std::vector<Rows> sources;
};

struct Product {
  int64_t group, target, tensor, rank, sizes[MAX_RANK], order[MAX_RANK];
  Rows output;
  std::vector<Rows> addends;

  int64_t size() const { return product_of(rank, sizes); }
};

// where the rows of a tensor lie
struct Span {
  int64_t start, size;
};

struct Program {
  int64_t num_rows, num_source_rows, num_target_rows, num_reduced;
  std::vector<Span> tensors, params;
  std::vector<Walk> copies, reads, merges;
  std::vector<std::vector<int64_t>> passes;  // of each tensor, the reads that go over all of its rows in their order
  std::vector<Group> groups;
  std::vector<Product> products;  // the reduced ones first
  std::vector<int64_t> coefficients;  // for each product, how many matrices (C, .) come before its first one
  int64_t num_coefficients = 0;

  // numbers: see equivariant_stack.py
  explicit Program(const int64_t* numbers) : next(numbers) {
    read(num_rows, num_source_rows, num_target_rows, num_reduced);
    for (std::vector<Span>* spans : {&tensors, &params}) {
      spans->resize(*next++);
      for (Span& span : *spans) read(span.start, span.size);
    }
    for (std::vector<Walk>* walks : {&copies, &reads, &merges}) {
      walks->resize(*next++);
      for (Walk& walk : *walks) {
        read(walk.tensor, walk.rank, walk.fresh, walk.divisor);
        read_array(walk.sizes, walk.rank);
        read_rows(walk.source, walk.rank);
        read_rows(walk.target, walk.rank);
      }
    }
    passes.resize(tensors.size());
    for (size_t i = 0; i < reads.size(); i++)
      if (is_pass(reads[i])) passes[reads[i].tensor].push_back(i);
    groups.resize(*next++);
    for (Group& group : groups) {
      read(group.rank, group.num_targets);
      group.sources.resize(*next++);
      for (Rows& rows : group.sources) read_rows(rows, group.rank);
    }
    products.resize(*next++);
    for (Product& product : products) {
      read(product.group, product.target, product.tensor, product.rank);
      read_array(product.sizes, product.rank);
      read_array(product.order, product.rank);
      read_rows(product.output, product.rank);
      product.addends.resize(*next++);
      for (Rows& rows : product.addends) read_rows(rows, product.rank);
      coefficients.push_back(num_coefficients);
      num_coefficients += groups[product.group].sources.size();
    }
  }

  // a diagonal is not in order
  static bool is_pass(const Walk& walk) {
    return walk.source.whole && in_order(walk.rank, walk.sizes, walk.source.strides);
  }

 private:
  const int64_t* next;

  template <class... N>
  void read(N&... numbers) {
    ((numbers = *next++), ...);
  }
  void read_array(int64_t* to, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] = *next++;
  }
  void read_rows(Rows& rows, int64_t rank) {
    read(rows.whole, rows.start);
    read_array(rows.strides, rank);
  }
};

// goes over the indices of a loop, in runs along its last axis
struct Cursor {
  const int64_t rank, *sizes;
  int64_t index[MAX_RANK];

  Cursor(int64_t rank, const int64_t* sizes, int64_t first) : rank(rank), sizes(sizes) {
    for (int64_t a = rank - 1; a >= 0; a--) {
      index[a] = first % sizes[a];
      first /= sizes[a];
    }
  }
  int64_t left() const { return rank ? sizes[rank - 1] - index[rank - 1] : 1; }
  int64_t offset(const int64_t* strides) const {
    int64_t sum = 0;
    for (int64_t a = 0; a < rank; a++) sum += index[a] * strides[a];
    return sum;
  }
  int64_t step(const int64_t* strides) const { return rank ? strides[rank - 1] : 0; }
  void advance(int64_t run) {
    if (rank == 0) return;
    index[rank - 1] += run;
    for (int64_t a = rank - 1; a > 0 && index[a] == sizes[a]; a--) {
      index[a] = 0;
      index[a - 1]++;
    }
  }
};

// rows [first, first + count) of a product's loop, one behind the other
template <int V>
static void collect(const Product& product, const int64_t* strides, const Vector* from, int64_t first, int64_t count,
                    Vector* to) {
  Cursor cursor(product.rank, product.sizes, first);
  const int64_t step = cursor.step(strides) * V;
  for (int64_t done = 0; done < count;) {
    const int64_t run = std::min(count - done, cursor.left());
    const Vector* row = from + cursor.offset(strides) * V;
    for (int64_t i = 0; i < run; i++, row += step, to += V)
      for (int v = 0; v < V; v++) to[v] = row[v];
    cursor.advance(run);
    done += run;
  }
}

// the same of all addends together, and of a constant
template <int V>
static void collect_addends(const Product& product, const Vector* tables, const Vector* constant, int64_t first,
                            int64_t count, Vector* to) {
  const int64_t num_addends = product.addends.size();
  Cursor cursor(product.rank, product.sizes, first);
  for (int64_t done = 0; done < count;) {
    const int64_t run = std::min(count - done, cursor.left());
    Vector fixed[V];  // of a run
    const Vector* rows[MAX_RANK + 1];
    int64_t steps[MAX_RANK + 1], num_rows = 0;
    for (int v = 0; v < V; v++) fixed[v] = constant[v];
    for (int64_t a = 0; a < num_addends; a++) {
      const Rows& addend = product.addends[a];
      const Vector* row = tables + (addend.start + cursor.offset(addend.strides)) * V;
      const int64_t step = cursor.step(addend.strides) * V;
      if (step == 0) {
        for (int v = 0; v < V; v++) fixed[v] += row[v];
      } else {
        rows[num_rows] = row;
        steps[num_rows++] = step;
      }
    }
    for (int64_t i = 0; i < run; i++, to += V)
      for (int v = 0; v < V; v++) {
        Vector sum = fixed[v];
        for (int64_t a = 0; a < num_rows; a++) sum += rows[a][i * steps[a] + v];
        to[v] = sum;
      }
    cursor.advance(run);
    done += run;
  }
}

// part [first, first + count) of the loop of a walk: rows are added to the target
template <int V>
static void add(const Walk& walk, const Vector* from, Vector* to, int64_t first, int64_t count) {
  Cursor cursor(walk.rank, walk.sizes, first);
  const int64_t step = cursor.step(walk.source.strides) * V, to_step = cursor.step(walk.target.strides) * V;
  const REAL factor = (REAL)1 / walk.divisor;
  for (int64_t done = 0; done < count;) {
    const int64_t run = std::min(count - done, cursor.left());
    const Vector* row = from + (walk.source.start + cursor.offset(walk.source.strides)) * V;
    Vector* target = to + (walk.target.start + cursor.offset(walk.target.strides)) * V;
    if (to_step == 0) {
      Vector sums[2][V] = {};  // an addition has to wait for the one before
      int64_t i = 0;
      for (; i + 1 < run; i += 2, row += 2 * step)
        for (int v = 0; v < V; v++) {
          sums[0][v] += row[v];
          sums[1][v] += row[step + v];
        }
      for (int v = 0; v < V && i < run; v++) sums[0][v] += row[v];
      for (int v = 0; v < V; v++) target[v] += (sums[0][v] + sums[1][v]) * factor;
    } else {
      for (int64_t i = 0; i < run; i++, row += step, target += to_step)
        for (int v = 0; v < V; v++) target[v] += row[v] * factor;
    }
    cursor.advance(run);
    done += run;
  }
}

template <int V>
static void add(const Walk& walk, const Vector* from, Vector* to) {
  std::fill_n(to + walk.target.start * V, walk.fresh * V, Vector{});
  add<V>(walk, from, to, 0, product_of(walk.rank, walk.sizes));
}

// Passes go over the rows of a tensor block by block, for all means over an axis at once: a block may come from the layer
// that has just made it.
template <int V>
static void begin_passes(const Program& program, Vector* sources, const Team& team) {
  for (size_t t = team.rank; t < program.tensors.size(); t += team.size)
    for (int64_t i : program.passes[t]) {
      const Walk& walk = program.reads[i];
      std::fill_n(sources + walk.target.start * V, walk.fresh * V, Vector{});
    }
}

template <int V>
static void run_passes(const Program& program, int64_t tensor, const Vector* rows, Vector* sources, int64_t first,
                       int64_t count) {
  for (int64_t i : program.passes[tensor]) add<V>(program.reads[i], rows, sources, first, count);
}

template <int V>
static void run_passes(const Program& program, const Vector* rows, Vector* sources, const Team& team) {
  for (size_t t = team.rank; t < program.tensors.size(); t += team.size)
    for (int64_t first = 0; first < program.tensors[t].size; first += P)
      run_passes<V>(program, t, rows, sources, first, std::min<int64_t>(P, program.tensors[t].size - first));
}
