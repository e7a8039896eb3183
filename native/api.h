// How a function or class leaves the core library, which hides everything else.
#pragma once

#if defined(_WIN32)
#define SEPCONV_API
#else
#define SEPCONV_API __attribute__((visibility("default")))
#endif
