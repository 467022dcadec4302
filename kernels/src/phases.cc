#include "phases.h"

namespace encort {

std::atomic<int64_t> phase_nanoseconds[PHASES];

}  // namespace encort

// The name of a phase; null after the last.
extern "C" __attribute__((visibility("default"))) const char* encort_kernels_phase_name(int phase) {
  return phase < encort::PHASES ? encort::PHASE_NAMES[phase] : nullptr;
}

extern "C" __attribute__((visibility("default"))) double encort_kernels_phase_seconds(int phase) {
  return 1e-9 * static_cast<double>(encort::phase_nanoseconds[phase].load(std::memory_order_relaxed));
}
