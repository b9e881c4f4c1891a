// The model of one_kind.cpp with three kinds of attention: at most 1.4 times its time is the aim.
#define GUILD_THREE_KINDS
#include "one_kind.cpp"
