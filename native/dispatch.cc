// Picks the instruction-set level.
#include "dispatch.h"
namespace sepconv {
const char* isa_name() { return "generic"; }
}
