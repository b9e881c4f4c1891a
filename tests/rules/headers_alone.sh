#!/usr/bin/env bash
# Compiles each .hpp alone, included twice, with all warnings as errors. CXX and FLAGS come from the build; by hand:
#   CXX=clang++-19 tests/rules/headers_alone.sh
# With WORK, a folder, and g++ the headers of the standard library and of the system are read once for all: in half of
# the time, but one of them that a header forgets is not missed. `.ci/run full` runs without.
set -u
cd "$(dirname "$0")/../.."
CXX=${CXX:-g++}
FLAGS=${FLAGS:--std=c++20 -Iinclude}
FLAGS="$FLAGS -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror"
jobs=${JOBS:-2}
if [ -n "${WORK:-}" ] && "$CXX" --version | grep -q 'Free Software Foundation'; then
  known=$WORK/headers_alone.hpp
  mkdir -p "$WORK"
  # pcre2.h wants to be told the width of characters first.
  grep -rhoE '^#include <[a-z_0-9./]+>' --include='*.hpp' include/guild | grep -v 'guild/\|pcre2' | LC_ALL=C sort -u > "$known"
  "$CXX" $FLAGS -x c++-header "$known" -o "$known.gch" || exit 1
  FLAGS="$FLAGS -include $known -Winvalid-pch"
fi
export CXX FLAGS
check() {
  printf '#include <%s>\n#include <%s>\n' "$1" "$1" | "$CXX" $FLAGS -fsyntax-only -x c++ - ||
    { echo "FAILED alone: $1"; return 1; }
}
export -f check
count=$(cd include && find guild -name '*.hpp' | wc -l)
(cd include && find guild -name '*.hpp') | LC_ALL=C sort | xargs -P "$jobs" -I{} bash -c 'check {}' || exit 1
echo "$count headers compile alone with $CXX"
