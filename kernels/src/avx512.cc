// AVX-512 with VNNI and BF16: Zen 4 and later, Sapphire Rapids and later.
#include <immintrin.h>

#include <cstring>
#include <utility>

#include "layer.h"

namespace {

constexpr int ROWS = 6, TILES = 4;  // 24 sums, four tiles of weights and one row fill the 32 registers

struct Int8 {
  static __m512i add(__m512i sum, __m512i row, __m512i tile) { return _mm512_dpbusd_epi32(sum, row, tile); }
};

struct Bf16 {
  static __m512i add(__m512i sum, __m512i row, __m512i tile) {
    return (__m512i)_mm512_dpbf16_ps((__m512)sum, (__m512bh)row, (__m512bh)tile);
  }
};

inline __m512i four_bytes(const uint8_t* from) {
  int bytes;
  std::memcpy(&bytes, from, sizeof bytes);
  return _mm512_set1_epi32(bytes);
}

// The sums have constant indices, because GCC would keep an array that loops index in memory.
template <class Format, int Tiles, int... Index>
void dot_sums(const uint8_t* a, ptrdiff_t stride, const uint8_t* b, ptrdiff_t tile, int steps, void* c, ptrdiff_t columns,
              std::integer_sequence<int, Index...>) {
  __m512i sums[] = {(static_cast<void>(Index), _mm512_setzero_si512())...};
  for (int step = 0; step < steps; ++step, a += 4, b += 64)
    ((sums[Index] = Format::add(sums[Index], four_bytes(a + Index / Tiles * stride),
                                _mm512_loadu_si512(b + Index % Tiles * tile))),
     ...);
  (_mm512_storeu_si512(static_cast<int32_t*>(c) + Index / Tiles * columns + Index % Tiles * 16, sums[Index]), ...);
}

template <class Format, int Rows, int Tiles>
void dot_block(const uint8_t* a, ptrdiff_t stride, const uint8_t* b, ptrdiff_t tile, int steps, void* c, ptrdiff_t columns) {
  dot_sums<Format, Tiles>(a, stride, b, tile, steps, c, columns, std::make_integer_sequence<int, Rows * Tiles>());
}

}  // namespace

#include "dot.h"
#include "run_layer.h"

namespace encort {

static bool is_available() {
  return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

const InstructionSet avx512 = {"avx512", is_available, run_layer};

}  // namespace encort
