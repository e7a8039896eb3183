// Stands in for libtensorflow_framework while bind_tensorflow.cc is linked; it is never installed.
//
// Python loads TensorFlow's libraries RTLD_LOCAL, so the names in them are visible only to a
// library that lists libtensorflow_framework as one it needs. Linking against this stub, which
// bears the same soname, writes that entry; at run time the dynamic linker finds the real library
// already loaded under the name and binds to it.
#include "tensorflow_c_api.h"

extern "C" {
#define SEPCONV_DEFINE(result, name, parameters) \
  __attribute__((visibility("default"))) result name parameters { __builtin_trap(); }
SEPCONV_TENSORFLOW_FUNCTIONS(SEPCONV_DEFINE)
#undef SEPCONV_DEFINE
}
