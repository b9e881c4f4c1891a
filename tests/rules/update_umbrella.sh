#!/usr/bin/env bash
# Rewrites the headers that list the others: guild.hpp includes all .hpp, <floor>/fwd.hpp declares the public types of a
# floor, fwd.hpp includes these. With --check compares only.
set -eu
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

headers() { (cd include && find "$1" -name '*.hpp' ! -path guild/guild.hpp ! -name fwd.hpp | LC_ALL=C sort); }
floors() { (cd include && find guild -mindepth 1 -maxdepth 1 -type d -printf '%f\n' | LC_ALL=C sort); }
written='Written by tests/rules/update_umbrella.sh.'

{
  printf '// All of guild for the host compiler; guild/cuda.cuh adds the CUDA side. %s\n#pragma once\n\n' "$written"
  { echo guild/fwd.hpp; headers guild; } | LC_ALL=C sort | sed 's/.*/#include <&>/'
} > "$work/guild.hpp"

{
  printf '// Declares the public types of guild, for headers that only name them; %s\n#pragma once\n\n' "${written,}"
  floors | sed 's/.*/#include <guild\/&\/fwd.hpp>/'
} > "$work/fwd.hpp"

for floor in $(floors); do
  mkdir "$work/$floor"
  {
    printf '// Declares the public types of %s/, for headers that only name them. %s\n#pragma once\n\n' "$floor" "$written"
    if [ "$floor" = core ]; then echo '#include <cstdint>'; else echo '#include <guild/core/fwd.hpp>'; fi
    printf '\nnamespace guild {\ninline namespace v1 {\n'
    if [ "$floor" = core ]; then printf '\nusing Index = std::int64_t;\n'; fi
    headers "guild/$floor" | while IFS= read -r header; do
      declarations=$(awk -f tests/rules/forward_declarations.awk "include/$header" | LC_ALL=C sort -u)
      if [ -n "$declarations" ]; then printf '\n// %s\n%s\n' "$header" "$declarations"; fi
    done
    printf '\n}  // namespace v1\n}  // namespace guild\n'
  } > "$work/$floor/fwd.hpp"
done

for name in guild fwd $(floors | sed 's/$/\/fwd/'); do
  file=include/guild/$name.hpp
  if [ "${1:-}" = --check ]; then
    diff -u "$file" "$work/$name.hpp" || { echo "$file is out of date: run tests/rules/update_umbrella.sh"; exit 1; }
  else
    cp "$work/$name.hpp" "$file"
    chmod 644 "$file"
  fi
done
