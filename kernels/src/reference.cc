// Plain C++: what the other instruction sets are compared with, and what runs under sanitizers on any machine.
#include <cstring>

#include "layer.h"

namespace {

constexpr int ROWS = 6, TILES = 4;

struct DotScope {
  DotScope() {}  // nothing to prepare
};

float from_bf16(uint16_t half) {
  const uint32_t word = uint32_t{half} << 16;
  float value;
  std::memcpy(&value, &word, sizeof value);
  return value;
}

int32_t product_int8(const uint8_t* a, const uint8_t* b) {
  int32_t total = 0;
  for (int i = 0; i < 4; ++i) total += a[i] * static_cast<int8_t>(b[i]);
  return total;
}

float product_bf16(const uint8_t* a, const uint8_t* b) {
  uint16_t x[2], weights[2];
  std::memcpy(x, a, 4);
  std::memcpy(weights, b, 4);
  return from_bf16(x[1]) * from_bf16(weights[1]) + from_bf16(x[0]) * from_bf16(weights[0]);
}

template <class Sum, class Product>
void dot_plain(Product product, const uint8_t* a, ptrdiff_t stride, int rows, const uint8_t* b, ptrdiff_t tile, int tiles,
               int steps, Sum* c, ptrdiff_t columns) {
  for (int r = 0; r < rows; ++r)
    for (int column = 0; column < tiles * encort::LANES; ++column) {
      const uint8_t* weights = b + column / encort::LANES * tile + column % encort::LANES * 4;
      Sum total = 0;
      for (int step = 0; step < steps; ++step) total += product(a + r * stride + step * 4, weights + step * 64);
      c[r * columns + column] = total;
    }
}

void dot(encort::Format format, const uint8_t* a, ptrdiff_t stride, int rows, const uint8_t* b, ptrdiff_t tile, int tiles,
         int steps, void* c, ptrdiff_t columns) {
  if (format == encort::Format::int8)
    dot_plain(product_int8, a, stride, rows, b, tile, tiles, steps, static_cast<int32_t*>(c), columns);
  else
    dot_plain(product_bf16, a, stride, rows, b, tile, tiles, steps, static_cast<float*>(c), columns);
}

}  // namespace

#include "run_layer.h"

namespace encort {

const InstructionSet reference = {"reference", [] { return true; }, run_layer};

}  // namespace encort
