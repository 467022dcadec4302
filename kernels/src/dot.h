// Chooses the product of the right size among the templates dot_block<Format, Rows, Tiles> of an instruction set.
#pragma once

#include <utility>

#include "layer.h"

namespace {

struct DotScope {
  DotScope() {}  // nothing to prepare
};

using Dot = void (*)(const uint8_t*, ptrdiff_t, const uint8_t*, ptrdiff_t, int, void*, ptrdiff_t);

template <class Format, int... Sizes>
const Dot* dots(std::integer_sequence<int, Sizes...>) {
  static constexpr Dot all[] = {dot_block<Format, Sizes / TILES + 1, Sizes % TILES + 1>...};
  return all;
}

inline void dot(encort::Format format, const uint8_t* a, ptrdiff_t stride, int rows, const uint8_t* b, ptrdiff_t tile,
                int tiles, int steps, void* c, ptrdiff_t columns) {
  const auto sizes = std::make_integer_sequence<int, ROWS * TILES>();
  const Dot* all = format == encort::Format::int8 ? dots<Int8>(sizes) : dots<Bf16>(sizes);
  all[(rows - 1) * TILES + tiles - 1](a, stride, b, tile, steps, c, columns);
}

}  // namespace
