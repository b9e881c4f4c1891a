#!/usr/bin/env bash
# compile_fail.sh FILE: FILE must not compile, and the compiler must say the sentence of its line `// expect: SENTENCE`.
# With GUILD_FIXED defined the same file must compile, so that nothing but the fault under test refuses it.
# What compile_fail_headers.sh left in WORK is read in place of the headers, but by files with flags of their own.
set -u
source=$1
CXX=${CXX:-g++}
FLAGS=${FLAGS:--std=c++20 -Iinclude}
expected=$(sed -n 's/^\/\/ expect: //p' "$source")
if [ -z "$expected" ]; then echo "$source: no line '// expect: sentence'"; exit 1; fi
flags=$(sed -n 's/^\/\/ flags: //p' "$source")
if [ -z "$flags" ] && [ -e "${WORK:-}/compile_fail.hpp.gch" ]; then FLAGS="$FLAGS -include $WORK/compile_fail.hpp"; fi
if output=$("$CXX" $FLAGS $flags -fsyntax-only "$source" 2>&1); then echo "$source compiles, and must not"; exit 1; fi
if ! printf '%s\n' "$output" | grep -qF -- "$expected"; then
  printf '%s\n' "$output" | head -40
  echo "$source: refused, but without the sentence: $expected"
  exit 1
fi
if grep -q GUILD_FIXED "$source" && ! "$CXX" $FLAGS -DGUILD_FIXED -fsyntax-only "$source"; then
  echo "$source: does not compile without its fault either"
  exit 1
fi
