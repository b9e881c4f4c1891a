// flags: -ffast-math
// expect: guild needs IEEE arithmetic
#include <guild/core/error.hpp>
