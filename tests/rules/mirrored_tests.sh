#!/usr/bin/env bash
# Every header include/guild/X.hpp has a test tests/X_test.cpp, or a line in covered_by.txt that says which test covers
# it; the list has no line too many. It is kept by hand.
set -u
cd "$(dirname "$0")/../.."
list=tests/rules/covered_by.txt
faults=0 mirrored=0 covered=0
fault() { echo "$1"; faults=$((faults + 1)); }
while IFS= read -r header; do
  name=${header#include/guild/} name=${name%.hpp}
  case $name in guild | cpu | fwd | */fwd) continue ;; esac
  test=$(awk -v name="$name" '$1 == name { print $2 }' "$list")
  if [ -e "tests/${name}_test.cpp" ]; then
    mirrored=$((mirrored + 1))
    if [ -n "$test" ]; then fault "$list: $name has a test of its own; delete its line"; fi
  elif [ -z "$test" ]; then
    fault "$header has no tests/${name}_test.cpp; write it, or say in $list which test covers it"
  elif [ ! -e "tests/${test}_test.cpp" ] && [ ! -e "tests/$test.sh" ]; then
    fault "$list: $name is covered by tests/${test}_test.cpp or .sh, which does not exist"
  else
    covered=$((covered + 1))
  fi
done < <(find include/guild -name '*.hpp' | LC_ALL=C sort)
while read -r name _; do
  case $name in '' | '#'*) continue ;; esac
  if [ ! -e "include/guild/$name.hpp" ]; then fault "$list: there is no header $name"; fi
done < "$list"
echo "$mirrored headers with a test of their name, $covered covered by another, $faults faults"
[ "$faults" -eq 0 ]
