// Sixteen floats at a time, in the vector extensions that GCC and Clang lower to any instruction set.
// Everything has internal linkage: each instruction set compiles its own copy.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#include "layer.h"

namespace {

using Floats = float __attribute__((vector_size(64)));
using Ints = int32_t __attribute__((vector_size(64)));
using Words = uint32_t __attribute__((vector_size(64)));
using Halves = uint16_t __attribute__((vector_size(32)));
using Bytes = uint8_t __attribute__((vector_size(16)));

template <class Vector>
inline Vector load(const void* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof vector);
  return vector;
}

template <class Vector>
inline void store(void* to, Vector vector) {
  std::memcpy(to, &vector, sizeof vector);
}

// The first `lanes` lanes; the others are zero.
template <class Vector>
inline Vector load_part(const void* from, int lanes) {
  if (lanes == encort::LANES) return load<Vector>(from);
  Vector vector{};
  std::memcpy(&vector, from, lanes * sizeof vector / encort::LANES);
  return vector;
}

template <class Vector>
inline void store_part(void* to, Vector vector, int lanes) {
  if (lanes == encort::LANES) return store(to, vector);
  std::memcpy(to, &vector, lanes * sizeof vector / encort::LANES);
}

inline Floats splat(float value) { return Floats{} + value; }

template <class To, class From>
inline To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

#ifdef __AVX512BF16__  // The compilers do not find these instructions by themselves.
inline Floats min(Floats a, Floats b) { return (Floats)_mm512_min_ps((__m512)a, (__m512)b); }
inline Floats max(Floats a, Floats b) { return (Floats)_mm512_max_ps((__m512)a, (__m512)b); }
inline Halves to_bf16(Floats v) { return bits<Halves>(_mm512_cvtneps_pbh((__m512)v)); }
inline Bytes to_bytes(Floats v) { return (Bytes)_mm512_cvtusepi32_epi8(_mm512_cvtps_epi32((__m512)max(v, Floats{}))); }
#else
inline Floats min(Floats a, Floats b) { return a < b ? a : b; }
inline Floats max(Floats a, Floats b) { return a > b ? a : b; }

// Nearest bf16, ties to even.
inline Halves to_bf16(Floats v) {
  Words word = bits<Words>(v);
  word += 0x7fff + ((word >> 16) & 1);
  return __builtin_convertvector(word >> 16, Halves);
}

// Nearest byte from 0 to 255, ties to even.
inline Bytes to_bytes(Floats v) {
  const float to_integer = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  Floats limited = min(max(v, Floats{}), splat(255.0f)) + to_integer;
  return __builtin_convertvector(bits<Ints>(limited) & 255, Bytes);
}
#endif

// Adds up the lanes, or finds their largest, in the order of a tree.
template <class Combine>
inline float fold(Floats v, Combine combine) {
  v = combine(v, __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  v = combine(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));
  v = combine(v, __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
  v = combine(v, __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
  return v[0];
}

inline float sum(Floats v) {
  return fold(v, [](Floats a, Floats b) { return a + b; });
}

inline float largest(Floats v) {
  return fold(v, [](Floats a, Floats b) { return max(a, b); });
}

// Keeps the first `lanes` lanes, and gives the others a value.
inline Floats fill_after(Floats v, int lanes, float value) {
  const Ints lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return lane < lanes ? v : splat(value);
}

template <int Width, int... Lane>
inline void exchange(Words& a, Words& b, std::integer_sequence<int, Lane...>) {
  const Words first = __builtin_shufflevector(a, b, (Lane & Width ? 16 + Lane - Width : Lane)...);
  b = __builtin_shufflevector(a, b, (Lane & Width ? 16 + Lane : Lane + Width)...);
  a = first;
}

template <int Width>
inline void exchange_blocks(Words (&rows)[encort::LANES]) {
  for (int row = 0; row < encort::LANES; ++row)
    if ((row & Width) == 0)
      exchange<Width>(rows[row], rows[row + Width], std::make_integer_sequence<int, encort::LANES>());
}

// Swaps rows and lanes, by exchanging the blocks beside the diagonal in four steps.
inline void transpose(Words (&rows)[encort::LANES]) {
  exchange_blocks<8>(rows);
  exchange_blocks<4>(rows);
  exchange_blocks<2>(rows);
  exchange_blocks<1>(rows);
}

// e^x for -87 <= x <= 0, within 3e-6 of it; below, e^-87.
inline Floats exponential(Floats x) {
  const float to_integer = 12582912.0f;
  Floats shifted = max(x, splat(-87.0f)) * 1.44269504f + to_integer;
  Floats r = max(x, splat(-87.0f)) - (shifted - to_integer) * 0.693147181f;
  Floats p = splat(1.0f / 120);
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return bits<Floats>(bits<Ints>(p) + (bits<Ints>(shifted) << 23));  // the lowest bits of `shifted` are the integer
}

// x * (1/2 + z P(z^2)) with z = x / 4 cut to [-1, 1]: the share of x that Gelu keeps is an odd function plus 1/2.
// The polynomials are fitted to it; the result is within 2.1e-4 of Gelu, and beyond 4 within 6e-5 of x.
inline Floats gelu(Floats x, const float (&coefficients)[7]) {
  Floats z = min(max(x * 0.25f, splat(-1.0f)), splat(1.0f));
  Floats square = z * z;
  Floats p = splat(coefficients[6]);
  for (int i = 5; i >= 0; --i) p = p * square + coefficients[i];
  return x * (z * p + 0.5f);
}

const float ERF_GELU[] = {1.59153314f, -4.13267415f, 8.98289334f, -13.3367324f, 12.571104f, -6.70491377f, 1.52880434f};
const float TANH_GELU[] = {1.59098149f, -4.13711117f, 9.05215567f, -13.5815849f, 12.9510785f, -6.98225505f, 1.60676984f};

inline Floats activate(encort::Activation activation, Floats x) {
  if (activation == encort::Activation::gelu) return gelu(x, ERF_GELU);
  if (activation == encort::Activation::gelu_tanh) return gelu(x, TANH_GELU);
  return max(x, Floats{});
}

}  // namespace
