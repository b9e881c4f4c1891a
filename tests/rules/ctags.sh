#!/usr/bin/env bash
# ctags finds what a reader jumps to: types and functions of each floor, where they are defined.
set -u
cd "$(dirname "$0")/../.."
if ! ctags --version 2> /dev/null | grep -q 'Universal Ctags'; then echo "skipped: Universal Ctags is not installed"; exit 77; fi
tags=$(mktemp)
trap 'rm -f "$tags"' EXIT
ctags -R --languages=C++ --langmap=C++:+.hpp.cuh -f "$tags" include/guild || exit 1
faults=0
while read -r name header; do
  grep -q "^$name"$'\t'"include/guild/$header"$'\t' "$tags" || { echo "ctags does not find $name in $header"; faults=$((faults + 1)); }
done << 'LIST'
View core/view.hpp
Cpu device/cpu.hpp
Cuda device/cuda.cuh
linear ops/linear/linear.hpp
cached_attention ops/attention/attention.hpp
RmsNormRow ops/norm/rows/rms_norm.hpp
silu_and_slope ops/linear/rows/activation.hpp
run_grouped_linear ops/experts/cpu/grouped.hpp
Mla modules/mla.hpp
Transformer models/transformer.hpp
load inference/load.hpp
Trainer training/trainer.hpp
SafetensorsWriter io/safetensors_writer.hpp
LIST
[ "$faults" -eq 0 ] && echo "ctags finds the names"
