// Sixteen floats at a time, in the vector extensions that GCC and Clang lower to any instruction set.
// Everything has internal linkage: each instruction set compiles its own copy.
#pragma once

#include <cstdint>
#include <cstring>

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

inline Floats splat(float value) { return Floats{} + value; }
inline Floats min(Floats a, Floats b) { return a < b ? a : b; }
inline Floats max(Floats a, Floats b) { return a > b ? a : b; }

template <class To, class From>
inline To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

inline float sum(Floats v) {
  float total = 0;
  for (int lane = 0; lane < encort::LANES; ++lane) total += v[lane];
  return total;
}

inline float largest(Floats v) {
  float most = v[0];
  for (int lane = 1; lane < encort::LANES; ++lane) most = most > v[lane] ? most : v[lane];
  return most;
}

// Nearest bf16, ties to even.
inline Halves to_bf16(Floats v) {
  Words word = bits<Words>(v);
  word += 0x7fff + ((word >> 16) & 1);
  return __builtin_convertvector(word >> 16, Halves);
}

// Nearest byte from 0 to 255.
inline Bytes to_bytes(Floats v) {
  Floats limited = min(max(v + 0.5f, Floats{}), splat(255.0f));
  return __builtin_convertvector(__builtin_convertvector(limited, Ints), Bytes);
}

// e^x for x <= 0, within 3e-6 of it; 0 is the smallest normal number.
inline Floats exponential(Floats x) {
  x = max(x, splat(-87.0f));
  const float to_integer = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  Floats n = x * 1.44269504f + to_integer - to_integer;
  Floats r = x - n * 0.693147181f;
  Floats p = splat(1.0f / 120);
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return p * bits<Floats>((__builtin_convertvector(n, Ints) + 127) << 23);
}

// x * (1/2 + z P(z^2)) with z = x / LIMIT cut to [-1, 1]: the share of x that Gelu keeps is an odd function plus 1/2.
// The polynomials are fitted to it; the error of the result is at most 1e-5 of x beyond the limit, and 4e-5 before it.
inline Floats gelu(Floats x, const float (&coefficients)[10]) {
  const float limit = 4.2f;
  Floats z = min(max(x * (1 / limit), splat(-1.0f)), splat(1.0f));
  Floats square = z * z;
  Floats p = splat(coefficients[9]);
  for (int i = 8; i >= 0; --i) p = p * square + coefficients[i];
  return x * (z * p + 0.5f);
}

const float ERF_GELU[10] = {1.67545569f, -4.92079401f, 12.936801f, -26.4754581f, 42.1089439f, -51.0514526f, 45.1607819f, -27.1568565f, 9.82474995f, -1.60218239f};
const float TANH_GELU[10] = {1.67543888f, -4.9448905f, 13.2440748f, -28.0529251f, 46.6124649f, -59.0127258f, 54.1322556f, -33.4545631f, 12.3401756f, -2.03931332f};

inline Floats activate(encort::Activation activation, Floats x) {
  if (activation == encort::Activation::gelu) return gelu(x, ERF_GELU);
  if (activation == encort::Activation::gelu_tanh) return gelu(x, TANH_GELU);
  return max(x, Floats{});
}

}  // namespace
