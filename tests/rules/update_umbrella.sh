#!/usr/bin/env bash
# Rewrites the two headers that list the others: guild.hpp includes all .hpp, fwd.hpp declares all public types.
# With --check compares only.
set -eu
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

headers() { (cd include && find guild -name '*.hpp' ! -path guild/guild.hpp ! -path guild/fwd.hpp | LC_ALL=C sort); }

{
  echo '// All of guild for the host compiler; guild/cuda.cuh adds the CUDA side. Written by tests/rules/update_umbrella.sh.'
  echo '#pragma once'
  echo
  { echo guild/fwd.hpp; headers; } | LC_ALL=C sort | sed 's/.*/#include <&>/'
} > "$work/guild.hpp"

{
  echo '// Declares the public types of guild, for headers that only name them. Written by tests/rules/update_umbrella.sh.'
  echo '#pragma once'
  echo
  echo '#include <cstdint>'
  echo
  echo 'namespace guild::inline v1 {'
  echo
  echo 'using Index = std::int64_t;'
  headers | while IFS= read -r header; do
    declarations=$(awk -f tests/rules/forward_declarations.awk "include/$header" | LC_ALL=C sort -u)
    if [ -n "$declarations" ]; then printf '\n// %s\n%s\n' "$header" "$declarations"; fi
  done
  echo
  echo '}  // namespace guild::inline v1'
} > "$work/fwd.hpp"

for name in guild fwd; do
  file=include/guild/$name.hpp
  if [ "${1:-}" = --check ]; then
    diff -u "$file" "$work/$name.hpp" || { echo "$file is out of date: run tests/rules/update_umbrella.sh"; exit 1; }
  else
    cp "$work/$name.hpp" "$file"
    chmod 644 "$file"
  fi
done
