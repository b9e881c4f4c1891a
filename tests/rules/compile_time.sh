#!/usr/bin/env bash
# Prints how long the compiler takes for the whole library and for whole models, beside the budgets. Never fails on time.
set -u
cd "$(dirname "$0")/../.."
CXX=${CXX:-g++}
FLAGS=${FLAGS:--std=c++20 -Iinclude}
work=${WORK:-$(mktemp -d)}
mkdir -p "$work"

declare -A took
# measure NAME BUDGET FLAGS < source
measure() {
  cat > "$work/$1.cpp"
  local seconds
  # Processor time, which other work on the machine changes less than the clock.
  seconds=$(TIMEFORMAT=%U && { time "$CXX" $FLAGS $3 -c "$work/$1.cpp" -o "$work/$1.o" 2> "$work/$1.log"; } 2>&1) ||
    { cat "$work/$1.log"; echo "$1 does not compile"; exit 1; }
  took[$1]=$seconds
  awk -v n="$1" -v s="$seconds" -v b="$2" -v o="$(stat -c %s "$work/$1.o")" -v f="$3" \
    'BEGIN { printf("%-12s %6.2f s (budget %s s, %s), object %d KiB%s\n", n, s, b, f, o / 1024, (s + 0 > b + 0) ? "  OVER BUDGET" : "") }'
}

measure guild_hpp 2 -O0 <<< '#include <guild/guild.hpp>'
for source in tests/rules/compile_time/*.cpp; do
  [ -e "$source" ] && measure "$(basename "$source" .cpp)" 10 "-O2 -Itests/rules/compile_time" < "$source"
done
awk -v one="${took[one_kind]}" -v three="${took[three_kinds]}" \
  'BEGIN { printf("a model of three kinds of attention takes %.2f times as long as one of one (budget 1.4)\n", three / one) }'
exit 0
