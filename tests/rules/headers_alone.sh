#!/usr/bin/env bash
# Compiles each .hpp alone, included twice, with all warnings as errors. CXX and FLAGS come from the build; by hand:
#   CXX=clang++-19 tests/rules/headers_alone.sh
set -u
cd "$(dirname "$0")/../.."
CXX=${CXX:-g++}
FLAGS=${FLAGS:--std=c++20 -Iinclude}
jobs=${JOBS:-2}
export CXX FLAGS
check() {
  printf '#include <%s>\n#include <%s>\n' "$1" "$1" |
    "$CXX" $FLAGS -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror -fsyntax-only -x c++ - ||
    { echo "FAILED alone: $1"; return 1; }
}
export -f check
count=$(cd include && find guild -name '*.hpp' | wc -l)
(cd include && find guild -name '*.hpp') | LC_ALL=C sort | xargs -P "$jobs" -I{} bash -c 'check {}' || exit 1
echo "$count headers compile alone with $CXX"
