#!/usr/bin/env bash
# Plants one fault of each kind and expects includes.sh to name it.
set -u
here=$(dirname "$0")
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
failures=0

# plant FILE EXPECTED-TEXT LINES...: the fault alone in a tree that is right otherwise
plant() {
  rm -rf "$root/guild"
  mkdir -p "$root/guild/core" "$root/guild/io" "$root/guild/modules" "$root/guild/ops"
  printf '#pragma once\n' | tee "$root/guild/core/a.hpp" "$root/guild/io/a.hpp" "$root/guild/modules/a.hpp" > "$root/guild/ops/a.hpp"
  local file=$1 expected=$2
  shift 2
  printf '%s\n' "$@" > "$root/guild/$file"
  local output
  if output=$(bash "$here/includes.sh" "$root/guild") || ! printf '%s' "$output" | grep -qF "$expected"; then
    echo "not found: $expected; the output was: $output"
    failures=$((failures + 1))
  fi
}

once='#pragma once'
plant core/b.hpp 'core includes <guild/io/a.hpp>' "$once" '#include <guild/io/a.hpp>'
plant io/b.hpp 'io includes <guild/ops/a.hpp>' "$once" '#include <guild/ops/a.hpp>'
plant ops/b.hpp 'ops includes <guild/modules/a.hpp>' "$once" '# include  <guild/modules/a.hpp>  // why'
plant ops/b.hpp 'does not exist' "$once" '#include <guild/core/gone.hpp>'
plant core/b.hpp '<iostream> costs' "$once" '#include <iostream>'
plant modules/b.hpp '<jansson.h> belongs to io alone' "$once" '#include <jansson.h>'
plant modules/b.hpp 'Eigen is an oracle' "$once" '#include <Eigen/Dense>'
plant modules/b.hpp 'is CUDA' "$once" '#include <cuda_runtime.h>'
plant modules/b.hpp 'write <guild/...>' "$once" '#include "guild/core/a.hpp"'
plant modules/b.hpp 'must not be included from inside' "$once" '#include <guild/guild.hpp>'
plant modules/b.hpp '#pragma once is missing' '// nothing'
plant modules/b.hpp '301 lines' "$once" $(seq 300)
mkdir -p "$root/guild/ops/linear/cpu"
plant ops/b.hpp "is the CPU's" "$once" '#include <guild/ops/linear/cpu/a.hpp>'
mkdir -p "$root/guild/extras" && printf '#pragma once\n' > "$root/guild/extras/a.hpp"
if bash "$here/includes.sh" "$root/guild" | grep -qF 'no floor is named extras'; then :; else
  echo 'an unknown floor was not found'
  failures=$((failures + 1))
fi
[ "$failures" -eq 0 ]
