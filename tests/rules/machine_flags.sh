#!/usr/bin/env bash
# Units with the same -m flags link, whatever else differs; units with different ones do not, and the linker says why.
set -u
cd "$(dirname "$0")/../.."
CXX=${CXX:-g++}
FLAGS=${FLAGS:--std=c++20 -Iinclude}
work=${WORK:-$(mktemp -d)}/machine_flags
mkdir -p "$work"
case $(uname -sm) in "Linux x86_64") ;; *) echo "skipped: only for Linux on x86-64"; exit 0 ;; esac

printf '#include <guild/core/error.hpp>\nint other();\nint main() { return other(); }\n' > "$work/main.cpp"
printf '#include <guild/core/types.hpp>\nint other() { return 0; }\n' > "$work/other.cpp"
object() { "$CXX" $FLAGS $3 -c "$work/$1.cpp" -o "$work/$2.o" || exit 1; }  # object SOURCE OBJECT FLAGS
object main plain -O0
object other other_plain -O2
object main avx2 "-mavx2 -O2"
object other other_avx2 -mavx2
object other other_avx512 "-mavx512f -mavx2"
object main avx512 "-mavx512f -mavx2"
object other other_vnni "-mavx512f -mavx2 -mavx512vnni"
object other other_sse3 -msse3
object main sse41 -msse4.1

failed=0
links() { "$CXX" "$work/$1.o" "$work/$2.o" -o "$work/program" > "$work/log" 2>&1; }
for pair in "plain other_plain" "avx2 other_avx2"; do
  links $pair || { echo "FAILED: equal flags do not link ($pair)"; cat "$work/log"; failed=1; }
done
for pair in "plain other_avx2" "plain other_avx512" "avx2 other_avx512" "avx2 other_plain" "avx512 other_vnni" "sse41 other_sse3"; do
  if links $pair; then echo "FAILED: different flags link ($pair)"; failed=1; fi
  grep -q guild_units_have_the_same_machine_flags "$work/log" || { echo "FAILED: no word why ($pair)"; cat "$work/log"; failed=1; }
done
[ "$failed" -eq 0 ] && echo "units with different machine flags do not link"
exit "$failed"
