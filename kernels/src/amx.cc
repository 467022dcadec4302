// AMX: Sapphire Rapids and later. A tile register has 16 rows of 64 bytes, as 16 steps of a tile of packed weights have.
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "layer.h"

namespace {

constexpr int ROWS = 32, TILES = 2;  // registers: 0 to 3 are sums, 4 and 5 rows, 6 and 7 weights
constexpr int BLOCK = 16;            // rows, and steps, of a register

// Other code of this thread may use the registers too, so each walk over blocks begins with their sizes.
struct DotScope {
  DotScope() {
    struct {
      uint8_t palette = 1, reserved[15] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } sizes;
    _tile_loadconfig(&sizes);
  }
  ~DotScope() { _tile_release(); }
};

struct Rows {
  const uint8_t* data;
  ptrdiff_t stride;
};

// The last steps of rows and of a tile, which do not fill the registers, are read from copies that are filled up with zeros.
inline Rows full_rows(Rows a, int rows, int steps, uint8_t* copy) {
  if (steps >= BLOCK) return a;
  std::memset(copy, 0, ROWS * 64);
  for (int row = 0; row < rows; ++row) std::memcpy(copy + row * 64, a.data + row * a.stride, steps * 4);
  return {copy, 64};
}

inline const uint8_t* full_tile(const uint8_t* b, int steps, uint8_t* copy) {
  if (steps >= BLOCK) return b;
  std::memset(copy + steps * 64, 0, (BLOCK - steps) * 64);
  std::memcpy(copy, b, steps * 64);
  return copy;
}

template <bool TwoRows, bool TwoTiles>
inline void add_int8() {
  _tile_dpbusd(0, 4, 6);
  if constexpr (TwoTiles) _tile_dpbusd(1, 4, 7);
  if constexpr (TwoRows) _tile_dpbusd(2, 5, 6);
  if constexpr (TwoRows && TwoTiles) _tile_dpbusd(3, 5, 7);
}

template <bool TwoRows, bool TwoTiles>
inline void add_bf16() {
  _tile_dpbf16ps(0, 4, 6);
  if constexpr (TwoTiles) _tile_dpbf16ps(1, 4, 7);
  if constexpr (TwoRows) _tile_dpbf16ps(2, 5, 6);
  if constexpr (TwoRows && TwoTiles) _tile_dpbf16ps(3, 5, 7);
}

template <bool TwoRows, bool TwoTiles>
void dot_block(encort::Format format, Rows a, int rows, const uint8_t* b, ptrdiff_t tile, int steps, float* c,
               ptrdiff_t columns) {
  alignas(64) uint8_t row_copy[ROWS * 64], tile_copies[TILES][BLOCK * 64];
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (; steps > 0; steps -= BLOCK, a.data += 64, b += BLOCK * 64) {
    const Rows from = full_rows(a, rows, steps, row_copy);
    const uint8_t *first = full_tile(b, steps, tile_copies[0]), *second = first;
    if constexpr (TwoTiles) second = full_tile(b + tile, steps, tile_copies[1]);
    __asm__ volatile("" ::: "memory");  // GCC does not know that the loads read memory
    _tile_loadd(4, from.data, from.stride);
    if constexpr (TwoRows) _tile_loadd(5, from.data + BLOCK * from.stride, from.stride);
    _tile_loadd(6, first, 64);
    if constexpr (TwoTiles) _tile_loadd(7, second, 64);
    format == encort::Format::int8 ? add_int8<TwoRows, TwoTiles>() : add_bf16<TwoRows, TwoTiles>();
  }
  _tile_stored(0, c, columns * 4);
  if constexpr (TwoTiles) _tile_stored(1, c + BLOCK, columns * 4);
  if constexpr (TwoRows) _tile_stored(2, c + BLOCK * columns, columns * 4);
  if constexpr (TwoRows && TwoTiles) _tile_stored(3, c + BLOCK * columns + BLOCK, columns * 4);
}

inline void dot(encort::Format format, const uint8_t* a, ptrdiff_t stride, int rows, const uint8_t* b, ptrdiff_t tile,
                int tiles, int steps, void* c, ptrdiff_t columns) {
  constexpr decltype(&dot_block<false, false>) BLOCKS[2][2] = {{dot_block<false, false>, dot_block<false, true>},
                                                               {dot_block<true, false>, dot_block<true, true>}};
  BLOCKS[rows > BLOCK][tiles > 1](format, {a, stride}, rows, b, tile, steps, static_cast<float*>(c), columns);
}

}  // namespace

#include "run_layer.h"

namespace encort {

#ifdef ENCORT_EMULATED_TILES
static bool is_available() { return avx512.is_available(); }
#else
static bool is_available() {
  constexpr unsigned int BF16 = 1u << 22, TILE = 1u << 24, INT8 = 1u << 25, ALL = BF16 | TILE | INT8;
  constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;  // of arch_prctl; Linux gives the registers on request
  unsigned int eax = 0, ebx = 0, ecx = 0, edx = 0;
  const bool has_tiles = __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx & ALL) == ALL;
  return has_tiles && avx512.is_available() && syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}
#endif

const InstructionSet amx = {"amx", is_available, run_layer};

}  // namespace encort
