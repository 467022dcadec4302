// Plain C++ in the place of the AMX instructions, so that amx.cc is tested on processors that lack them.
// The build option ENCORT_EMULATED_TILES includes it before amx.cc.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace {

constexpr int SIZE = 16;
thread_local uint8_t tile_registers[8][SIZE][64];
thread_local bool tiles_are_configured = false;

inline void check_configured() {
  if (!tiles_are_configured) __builtin_trap();
}

inline void emulate_load(int tile, const void* from, long stride) {
  check_configured();
  for (int row = 0; row < SIZE; ++row)
    std::memcpy(tile_registers[tile][row], static_cast<const uint8_t*>(from) + row * stride, 64);
}

inline void emulate_store(int tile, void* to, long stride) {
  check_configured();
  for (int row = 0; row < SIZE; ++row)
    std::memcpy(static_cast<uint8_t*>(to) + row * stride, tile_registers[tile][row], 64);
}

inline int32_t add_bytes(int32_t sum, const uint8_t* a, const uint8_t* b) {
  for (int i = 0; i < 4; ++i) sum += a[i] * static_cast<int8_t>(b[i]);
  return sum;
}

inline float from_half(const uint8_t* from) {
  uint8_t bytes[4] = {0, 0, from[0], from[1]};
  float value;
  std::memcpy(&value, bytes, 4);
  return value;
}

inline float add_halves(float sum, const uint8_t* a, const uint8_t* b) {
  return sum + from_half(a) * from_half(b) + from_half(a + 2) * from_half(b + 2);
}

template <class Sum, class Add>
inline void emulate_products(int sums, int rows, int weights, Add add) {
  for (int row = 0; row < SIZE; ++row)
    for (int column = 0; column < SIZE; ++column) {
      Sum sum;
      std::memcpy(&sum, tile_registers[sums][row] + column * 4, 4);
      for (int step = 0; step < SIZE; ++step)
        sum = add(sum, tile_registers[rows][row] + step * 4, tile_registers[weights][step] + column * 4);
      std::memcpy(tile_registers[sums][row] + column * 4, &sum, 4);
    }
}

}  // namespace

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbusd
#undef _tile_dpbf16ps
#define _tile_loadconfig(sizes) (static_cast<void>(sizes), tiles_are_configured = true)
#define _tile_release() (tiles_are_configured = false)
#define _tile_zero(tile) std::memset(tile_registers[tile], 0, sizeof tile_registers[tile])
#define _tile_loadd(tile, from, stride) emulate_load(tile, from, stride)
#define _tile_stored(tile, to, stride) emulate_store(tile, to, stride)
#define _tile_dpbusd(sums, rows, weights) emulate_products<int32_t>(sums, rows, weights, add_bytes)
#define _tile_dpbf16ps(sums, rows, weights) emulate_products<float>(sums, rows, weights, add_halves)
