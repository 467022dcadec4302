// One layer of a post-norm encoder on packed tokens: its weights, its texts, and the instruction sets that compute it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace encort {

constexpr int LANES = 16;  // columns of one tile of packed weights

constexpr int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

enum class Format { int8, bf16 };

enum class Activation { gelu, gelu_tanh, relu };

// (x @ weight) * scale + bias. Columns are padded with zeros to a multiple of LANES.
struct Linear {
  Format format;
  int inputs, outputs;
  const void* weight;       // int8 [outputs/16][inputs/4][16][4], or bf16 [outputs/16][inputs/2][16][2]
  const float* scale;       // (outputs)
  const float* bias;        // (outputs)
  const float* multiplier;  // (inputs); int8 only: the product reads x * multiplier + zero_point as unsigned bytes
  float zero_point;
};

struct Norm {
  const float* weight;  // (hidden), padded with zeros to a multiple of LANES
  const float* bias;
  float epsilon;
};

// bias[key - query + longest - 1] is added to the scores of a head.
struct DistanceBias {
  const float* values;  // (heads, 2 * longest - 1); null: no bias
  int longest;
};

struct Layer {
  int hidden, heads;
  Activation activation;
  Linear qkv, attention_output, intermediate, output;  // the columns of the query are scaled by 1 / sqrt(head size)
  Norm attention_norm, output_norm;
  DistanceBias distance_bias;
};

// Text i has the tokens from starts[i] to starts[i + 1].
struct Texts {
  const int32_t* starts;
  int count;
  int tokens() const { return starts[count]; }
};

// Runs task(data, 0) to task(data, count - 1), on threads if that is worth their waking.
class Parallel {
 public:
  using Task = void (*)(void* data, size_t index);
  virtual void run(Task task, size_t count, void* data) const = 0;

  template <class Function>
  void operator()(size_t count, Function function) const {
    run([](void* data, size_t index) { (*static_cast<Function*>(data))(static_cast<int>(index)); }, count, &function);
  }

 protected:
  ~Parallel() = default;
};

struct InstructionSet {
  const char* name;
  bool (*is_available)();
  void (*run)(const Layer&, const Texts&, const float* x, float* y, const Parallel&);  // x and y are (tokens, hidden)
};

extern const InstructionSet amx, avx512, avx_vnni, reference;

}  // namespace encort
