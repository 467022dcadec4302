// 256-bit vectors with AVX-VNNI: processors without AVX-512. They have no product of bf16, so that is computed in float.
#include <cpuid.h>
#include <immintrin.h>

#include <cstring>
#include <utility>

#include "layer.h"

namespace {

constexpr int ROWS = 6, TILES = 1;  // a tile is two registers: 12 sums, and four registers for weights and rows

struct Int8 {
  static __m256i add(__m256i sum, __m256i row, __m256i tile) { return _mm256_dpbusd_avx_epi32(sum, row, tile); }
};

struct Bf16 {
  static __m256 first(__m256i pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }
  static __m256 second(__m256i pairs) { return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(-65536))); }

  static __m256i add(__m256i sum, __m256i row, __m256i tile) {
    __m256 total = _mm256_fmadd_ps(second(row), second(tile), _mm256_castsi256_ps(sum));
    return _mm256_castps_si256(_mm256_fmadd_ps(first(row), first(tile), total));
  }
};

inline __m256i four_bytes(const uint8_t* from) {
  int bytes;
  std::memcpy(&bytes, from, sizeof bytes);
  return _mm256_set1_epi32(bytes);
}

inline __m256i half_tile(const uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }

// The sums have constant indices, because GCC would keep an array that loops index in memory.
template <class Format, int... Index>
void dot_sums(const uint8_t* a, ptrdiff_t stride, const uint8_t* b, int steps, void* c, ptrdiff_t columns,
              std::integer_sequence<int, Index...>) {
  __m256i sums[] = {(static_cast<void>(Index), _mm256_setzero_si256())...};
  for (int step = 0; step < steps; ++step, a += 4, b += 64)
    ((sums[Index] = Format::add(sums[Index], four_bytes(a + Index / 2 * stride), half_tile(b + Index % 2 * 32))), ...);
  (_mm256_storeu_si256(reinterpret_cast<__m256i*>(static_cast<int32_t*>(c) + Index / 2 * columns + Index % 2 * 8), sums[Index]),
   ...);
}

template <class Format, int Rows, int Tiles>
void dot_block(const uint8_t* a, ptrdiff_t stride, const uint8_t* b, ptrdiff_t, int steps, void* c, ptrdiff_t columns) {
  dot_sums<Format>(a, stride, b, steps, c, columns, std::make_integer_sequence<int, Rows * 2>());
}

}  // namespace

#include "dot.h"
#include "run_layer.h"

namespace encort {

static bool is_available() {
  unsigned int eax = 0, ebx = 0, ecx = 0, edx = 0;
  const bool has_vnni = __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax & (1u << 4));
  return has_vnni && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

const InstructionSet avx_vnni = {"avx_vnni", is_available, run_layer};

}  // namespace encort
