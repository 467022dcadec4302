// How long layers take in each of their phases, summed over all layers and threads of the process, for profiles.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace encort {

enum class Phase { qkv, attention, attention_output, attention_norm, intermediate, output, output_norm };

constexpr const char* PHASE_NAMES[] = {"qkv", "attention", "attention_output", "attention_norm",
                                       "intermediate", "output", "output_norm"};
constexpr int PHASES = sizeof PHASE_NAMES / sizeof *PHASE_NAMES;

extern std::atomic<int64_t> phase_nanoseconds[PHASES];

// Measures phases that follow each other.
class Stopwatch {
 public:
  void end(Phase phase) {
    const auto now = std::chrono::steady_clock::now();
    const int64_t nanoseconds = std::chrono::duration_cast<std::chrono::nanoseconds>(now - start_).count();
    phase_nanoseconds[static_cast<int>(phase)].fetch_add(nanoseconds, std::memory_order_relaxed);
    start_ = now;
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace encort
