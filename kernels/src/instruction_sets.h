// Chooses the instruction set that layers run with.
#pragma once

#include "layer.h"

namespace encort {

// Returns the best instruction set that this processor has. ENCORT_KERNELS_ISA chooses another one by its name;
// `reference` runs everywhere and is slow, so it is never chosen by itself.
// Returns null if there is none.
const InstructionSet* choose_instruction_set();

}  // namespace encort
