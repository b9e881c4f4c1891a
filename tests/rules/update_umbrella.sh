#!/usr/bin/env bash
# Rewrites include/guild/guild.hpp as the sorted list of all .hpp headers; with --check compares only.
set -eu
cd "$(dirname "$0")/../.."
umbrella=include/guild/guild.hpp
wanted=$(mktemp)
trap 'rm -f "$wanted"' EXIT
{
  echo '// All of guild for the host compiler; guild/cuda.cuh adds the CUDA side. Written by tests/rules/update_umbrella.sh.'
  echo '#pragma once'
  echo
  (cd include && find guild -name '*.hpp' ! -path guild/guild.hpp | LC_ALL=C sort) | sed 's/.*/#include <&>/'
} > "$wanted"
if [ "${1:-}" = --check ]; then
  diff -u "$umbrella" "$wanted" || { echo "guild.hpp is not the list of all headers: run tests/rules/update_umbrella.sh"; exit 1; }
else
  cp "$wanted" "$umbrella"
  chmod 644 "$umbrella"
fi
