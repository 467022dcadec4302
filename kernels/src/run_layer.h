// The walk of the data through one layer, shared by all instruction sets.
//
// A file that includes this one has defined the innermost product in an unnamed namespace:
//   constexpr int ROWS, TILES;  // most rows of `a` and tiles of `b` that one product takes
//   void dot(Format, const uint8_t* a, ptrdiff_t stride, int rows, const uint8_t* b, ptrdiff_t tile, int tiles,
//            int steps, void* c, ptrdiff_t columns);
//   struct DotScope;  // lives as long as products are computed, one after the other, in a thread
// It computes c[row][16 * t + lane], int32 for int8 and float for bf16, from rows of `a` that are `stride` bytes apart,
// and from tiles of `b` that are `tile` bytes apart; each step reads four bytes of a row and 64 bytes of a tile.
// ROWS rows of `a` may be read, and room for ROWS rows of c may be written.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "phases.h"
#include "vectors.h"

namespace {

using namespace encort;

constexpr int CHUNK = 256;  // rows that go through the feed-forward products together, so that they stay in the cache

inline int size_of(Format format) { return format == Format::int8 ? 1 : 2; }
inline int steps_of(Format format, int inputs) { return round_up(inputs * size_of(format), 4) / 4; }

// Memory that a thread keeps from layer to layer.
template <class Value>
class Buffer {
 public:
  Value* rows(size_t count) {
    if (values_.size() < count + 64) values_.resize(count + 64);
    return reinterpret_cast<Value*>((reinterpret_cast<uintptr_t>(values_.data()) + 63) / 64 * 64);
  }

 private:
  std::vector<Value> values_;
};

// Rows of bytes or bf16 as a product reads them; columns are padded to a multiple of LANES.
struct Encoded {
  const Linear* reader;
  uint8_t* data;
  ptrdiff_t stride;

  static Encoded for_reader(const Linear& reader, int rows, Buffer<uint8_t>& buffer) {
    ptrdiff_t stride = round_up(reader.inputs, LANES) * size_of(reader.format);
    return {&reader, buffer.rows((rows + ROWS) * stride), stride};
  }

  void put(int row, int column, Floats v, int lanes = LANES) const {
    uint8_t* to = data + row * stride + column * size_of(reader->format);
    if (reader->format == Format::bf16) return store_part(to, to_bf16(v), lanes);
    const Floats multiplier = load_part<Floats>(reader->multiplier + column, lanes);
    store_part(to, to_bytes(v * multiplier + reader->zero_point), lanes);
  }
};

// Computes one panel of TILES * LANES columns for all rows, and gives sixteen results at a time to use(row, column, v).
template <class Use>
void multiply_panel(const Linear& linear, const uint8_t* a, ptrdiff_t stride, int rows, int panel, Use use) {
  const int steps = steps_of(linear.format, linear.inputs), first = panel * TILES;
  const int tiles = std::min(TILES, round_up(linear.outputs, LANES) / LANES - first);
  const ptrdiff_t tile = steps * 64;
  const uint8_t* b = static_cast<const uint8_t*>(linear.weight) + first * tile;
  alignas(64) float c[ROWS * TILES * LANES];
  const DotScope scope;
  for (int row = 0; row < rows; row += ROWS) {
    const int block = std::min(ROWS, rows - row);
    dot(linear.format, a + row * stride, stride, block, b, tile, tiles, steps, c, TILES * LANES);
    for (int t = 0; t < tiles; ++t) {
      const int column = (first + t) * LANES;
      const Floats scale = load<Floats>(linear.scale + column), bias = load<Floats>(linear.bias + column);
      for (int r = 0; r < block; ++r) {
        const float* from = c + (r * TILES + t) * LANES;
        Floats v = linear.format == Format::int8 ? __builtin_convertvector(load<Ints>(from), Floats) : load<Floats>(from);
        use(row + r, column, v * scale + bias);
      }
    }
  }
}

inline int panels(const Linear& linear) { return (linear.outputs + TILES * LANES - 1) / (TILES * LANES); }

// Normalizes a row of `size` values in place, and gives sixteen results at a time to use(column, v).
template <class Use>
void normalize(const Norm& norm, float* row, int size, Use use) {
  const int padded = round_up(size, LANES);
  Floats total{}, squares{};
  for (int column = 0; column < padded; column += LANES) total += load<Floats>(row + column);
  const float mean = sum(total) / size;
  for (int column = 0; column < padded; column += LANES) {
    const Floats difference = fill_after(load<Floats>(row + column) - mean, size - column, 0.0f);
    squares += difference * difference;
  }
  const float factor = 1 / std::sqrt(sum(squares) / size + norm.epsilon);
  for (int column = 0; column < padded; column += LANES) {
    Floats v = (load<Floats>(row + column) - mean) * factor;
    v = v * load<Floats>(norm.weight + column) + load<Floats>(norm.bias + column);
    store(row + column, v);
    use(column, v);
  }
}

// One text and one head: softmax(query . key) . value, a block of queries at a time.
class Attention {
 public:
  Attention(const Layer& layer, const uint16_t* qkv, ptrdiff_t stride, int first, int length, int head)
      : size_(layer.hidden / layer.heads), length_(length), stride_(stride), head_(head), layer_(layer) {
    query_ = qkv + first * stride + head * size_;
    pack(query_ + layer.hidden, query_ + 2 * layer.hidden);
  }

  // Gives sixteen values of a token's context at a time to use(token, column, v, lanes).
  template <class Use>
  void run(Use use) {
    static thread_local Buffer<float> scores_memory;
    static thread_local Buffer<uint16_t> shares_memory;
    const int keys = round_up(length_, LANES), columns = round_up(size_, LANES);
    float* scores = scores_memory.rows(ROWS * std::max(keys, columns));
    uint16_t* shares = shares_memory.rows(ROWS * keys);
    float highest[ROWS], inverse[ROWS];
    const DotScope scope;
    for (int row = 0; row < length_; row += ROWS) {
      const int block = std::min(ROWS, length_ - row);
      multiply(query_ + row * stride_, stride_, block, keys_, keys / LANES, size_ / 2, scores, keys);
      for (int r = 0; r < block; ++r) highest[r] = finish_scores(scores + r * keys, row + r);
      for (int r = 0; r < block; ++r) inverse[r] = exponentials(scores + r * keys, highest[r], shares + r * keys);
      float* context = scores;  // they were read to the end
      multiply(shares, keys, block, values_, columns / LANES, keys / 2, context, columns);
      for (int r = 0; r < block; ++r)
        for (int column = 0; column < size_; column += LANES)
          use(row + r, head_ * size_ + column, load<Floats>(context + r * columns + column) * inverse[r],
              std::min(LANES, size_ - column));
    }
  }

 private:
  static void multiply(const uint16_t* a, ptrdiff_t stride, int rows, const uint16_t* b, int tiles, int steps, float* c,
                       ptrdiff_t columns) {
    for (int t = 0; t < tiles; t += TILES)
      dot(Format::bf16, reinterpret_cast<const uint8_t*>(a), stride * 2, rows,
          reinterpret_cast<const uint8_t*>(b) + t * steps * 64, steps * 64, std::min(TILES, tiles - t), steps,
          c + t * LANES, columns);
  }

  // Lays out keys as [keys/16][size/2][16][2] and values as [size/16][keys/2][16][2], with zeros after the text.
  void pack(const uint16_t* key, const uint16_t* value) {
    static thread_local Buffer<uint16_t> keys_memory, values_memory;
    const int keys = round_up(length_, LANES), columns = round_up(size_, LANES);
    uint16_t* to_keys = keys_memory.rows(keys * size_);
    uint16_t* to_values = values_memory.rows(keys * columns);
    for (int token = 0; token < keys; token += LANES)
      for (int pair = 0; pair < size_ / 2; pair += LANES) pack_keys(key, token, pair, to_keys + token * size_);
    for (int column = 0; column < columns; column += LANES)
      for (int token = 0; token < keys; token += 2) {
        Words even = value_words(value, token, column), odd = value_words(value, token + 1, column);
        store(to_values + column * keys + token * LANES, even | (odd << 16));
      }
    keys_ = to_keys, values_ = to_values;
  }

  // Keys of sixteen tokens, from one pair of values to at most sixteen pairs later.
  void pack_keys(const uint16_t* key, int token, int pair, uint16_t* to) const {
    const int tokens = std::min(LANES, length_ - token), pairs = std::min(LANES, size_ / 2 - pair);
    Words rows[LANES];
    for (int row = 0; row < LANES; ++row)
      rows[row] = row < tokens ? load_part<Words>(key + (token + row) * stride_ + 2 * pair, pairs) : Words{};
    transpose(rows);
    for (int row = 0; row < pairs; ++row) store(to + (pair + row) * 2 * LANES, rows[row]);
  }

  Words value_words(const uint16_t* value, int token, int column) const {
    if (token >= length_) return Words{};
    const Halves halves = load_part<Halves>(value + token * stride_ + column, std::min(LANES, size_ - column));
    return __builtin_convertvector(halves, Words);
  }

  // Adds the distance bias to the scores of a query, masks the lanes after the text, and returns the highest score.
  float finish_scores(float* row, int query) const {
    const int keys = round_up(length_, LANES);
    if (const DistanceBias& bias = layer_.distance_bias; bias.values != nullptr) {
      const float* values = bias.values + head_ * (2 * bias.longest - 1) + bias.longest - 1 - query;
      for (int key = 0; key < length_; ++key) row[key] += values[key];
    }
    float* last = row + keys - LANES;
    store(last, fill_after(load<Floats>(last), length_ - (keys - LANES), -3e38f));
    Floats most = load<Floats>(row);
    for (int key = LANES; key < keys; key += LANES) most = max(most, load<Floats>(row + key));
    return largest(most);
  }

  // Writes e^(score - highest) of a row as bf16, and returns the inverse of their sum.
  float exponentials(const float* row, float highest, uint16_t* shares) const {
    Floats total{};
    for (int key = 0; key < length_; key += LANES) {
      Floats share = exponential(load<Floats>(row + key) - highest);
      total += share;
      store(shares + key, to_bf16(share));
    }
    return 1 / sum(total);
  }

  int size_, length_;
  ptrdiff_t stride_;
  int head_;
  const Layer& layer_;
  const uint16_t *query_, *keys_, *values_;
};

// Attention output, norm, feed-forward and norm of `rows` tokens, from their contexts and their inputs `x`, into `y`.
// The rows of x and y are padded to a multiple of LANES.
void feed_forward(const Layer& layer, const Encoded& context, int rows, const float* x, float* y, const Parallel& parallel,
                  Stopwatch& watch) {
  static thread_local Buffer<uint8_t> hidden_memory, inner_memory;
  const int width = round_up(layer.hidden, LANES);
  Encoded hidden = Encoded::for_reader(layer.intermediate, rows, hidden_memory);
  Encoded inner = Encoded::for_reader(layer.output, rows, inner_memory);
  parallel(panels(layer.attention_output), [&](int panel) {
    multiply_panel(layer.attention_output, context.data, context.stride, rows, panel, [&](int row, int column, Floats v) {
      store(y + row * width + column, v + load<Floats>(x + row * width + column));
    });
  });
  watch.end(Phase::attention_output);
  for (int row = 0; row < rows; ++row)
    normalize(layer.attention_norm, y + row * width, layer.hidden, [&](int column, Floats v) { hidden.put(row, column, v); });
  watch.end(Phase::attention_norm);
  parallel(panels(layer.intermediate), [&](int panel) {
    multiply_panel(layer.intermediate, hidden.data, hidden.stride, rows, panel, [&](int row, int column, Floats v) {
      inner.put(row, column, activate(layer.activation, v));
    });
  });
  watch.end(Phase::intermediate);
  parallel(panels(layer.output), [&](int panel) {
    multiply_panel(layer.output, inner.data, inner.stride, rows, panel, [&](int row, int column, Floats v) {
      store(y + row * width + column, v + load<Floats>(y + row * width + column));
    });
  });
  watch.end(Phase::output);
  for (int row = 0; row < rows; ++row) normalize(layer.output_norm, y + row * width, layer.hidden, [](int, Floats) {});
  watch.end(Phase::output_norm);
}

void run_padded(const Layer& layer, const Texts& texts, const float* x, float* y, const Parallel& parallel) {
  static thread_local Buffer<uint8_t> hidden_memory, context_memory;
  static thread_local Buffer<uint16_t> qkv_memory;
  Stopwatch watch;
  const int tokens = texts.tokens(), width = round_up(layer.hidden, LANES);
  Encoded hidden = Encoded::for_reader(layer.qkv, tokens, hidden_memory);
  for (int row = 0; row < tokens; ++row)
    for (int column = 0; column < width; column += LANES) hidden.put(row, column, load<Floats>(x + row * width + column));

  const ptrdiff_t stride = round_up(layer.qkv.outputs, LANES);
  uint16_t* qkv = qkv_memory.rows((tokens + ROWS) * stride);
  parallel(panels(layer.qkv), [&](int panel) {
    multiply_panel(layer.qkv, hidden.data, hidden.stride, tokens, panel,
                   [&](int row, int column, Floats v) { store(qkv + row * stride + column, to_bf16(v)); });
  });
  watch.end(Phase::qkv);

  Encoded context = Encoded::for_reader(layer.attention_output, tokens, context_memory);
  parallel(texts.count * layer.heads, [&](int index) {
    const int text = index / layer.heads, first = texts.starts[text], length = texts.starts[text + 1] - first;
    Attention(layer, qkv, stride, first, length, index % layer.heads)
        .run([&](int token, int column, Floats v, int lanes) { context.put(first + token, column, v, lanes); });
  });
  watch.end(Phase::attention);

  for (int row = 0; row < tokens; row += CHUNK) {
    Encoded part = {context.reader, context.data + row * context.stride, context.stride};
    feed_forward(layer, part, std::min(CHUNK, tokens - row), x + row * width, y + row * width, parallel, watch);
  }
}

void run_layer(const Layer& layer, const Texts& texts, const float* x, float* y, const Parallel& parallel) {
  if (layer.hidden % LANES == 0) return run_padded(layer, texts, x, y, parallel);
  static thread_local Buffer<float> x_memory, y_memory;
  const int tokens = texts.tokens(), width = round_up(layer.hidden, LANES);
  float *padded_x = x_memory.rows(tokens * width), *padded_y = y_memory.rows(tokens * width);
  for (int row = 0; row < tokens; ++row) {
    std::copy_n(x + row * layer.hidden, layer.hidden, padded_x + row * width);
    std::fill_n(padded_x + row * width + layer.hidden, width - layer.hidden, 0.0f);
  }
  run_padded(layer, texts, padded_x, padded_y, parallel);
  for (int row = 0; row < tokens; ++row) std::copy_n(padded_y + row * width, layer.hidden, y + row * layer.hidden);
}

}  // namespace
