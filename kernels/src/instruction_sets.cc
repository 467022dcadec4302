#include "instruction_sets.h"

#include <cstdlib>
#include <cstring>

namespace encort {

static const InstructionSet* const BEST_FIRST[] = {&amx, &avx512, &avx_vnni};

const InstructionSet* choose_instruction_set() {
  const char* wanted = std::getenv("ENCORT_KERNELS_ISA");
  if (wanted != nullptr && std::strcmp(wanted, reference.name) == 0) return &reference;
  for (const InstructionSet* set : BEST_FIRST)
    if ((wanted == nullptr || std::strcmp(wanted, set->name) == 0) && set->is_available()) return set;
  return nullptr;
}

}  // namespace encort

extern "C" __attribute__((visibility("default"))) const char* encort_kernels_instruction_set() {
  const encort::InstructionSet* set = encort::choose_instruction_set();
  return set == nullptr ? "" : set->name;
}
