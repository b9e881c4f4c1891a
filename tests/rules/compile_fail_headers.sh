#!/usr/bin/env bash
# With g++, precompiles what the programs of tests/compile_fail include, for compile_fail.sh: $WORK/compile_fail.hpp.gch.
# Not the CPU's kernels: that a unit lacks them is one of the faults.
set -eu
cd "$(dirname "$0")/../.."
rm -f "$WORK"/compile_fail.hpp*
"$CXX" --version | grep -q 'Free Software Foundation' || exit 0
mkdir -p "$WORK"
grep -hoE '^#include <guild/.*>' tests/compile_fail/*.cpp | grep -v '<guild/cpu.hpp>' | LC_ALL=C sort -u > "$WORK/compile_fail.hpp"
"$CXX" $FLAGS -x c++-header "$WORK/compile_fail.hpp" -o "$WORK/compile_fail.hpp.gch"
