#!/usr/bin/env bash
# includes.sh FOLDER: checks the headers under FOLDER (include/guild) against the rules of docs/design.md, section 2:
# a header includes only from its own or lower floors, heavy standard headers stay out, headers stay short.
set -u
root=$1
faults=0
fault() { echo "$1"; faults=$((faults + 1)); }

# The floors that a floor may include, itself first. io stands beside them and needs core only.
allowed() {
  case $1 in
    core) echo core ;;
    device) echo device core ;;
    ops) echo ops device core ;;
    modules) echo modules ops device core ;;
    models) echo models modules ops device core ;;
    io) echo io core ;;
    checkpoint) echo checkpoint models modules ops device core io ;;
    inference) echo inference checkpoint models modules ops device core io ;;
    training) echo training inference checkpoint models modules ops device core io ;;
    top) echo core device ops modules models io checkpoint inference training ;;
    *) echo ;;
  esac
}

while IFS= read -r file; do
  inside=${file#"$root"/}
  case $inside in */*) floor=${inside%%/*} ;; *) floor=top ;; esac
  floors=$(allowed "$floor")
  if [ -z "$floors" ]; then
    fault "$file: no floor is named $floor; see docs/design.md, section 2"
    continue
  fi

  limit=300
  case $inside in ops/*/cpu/* | ops/*/cuda/*) limit=500 ;; guild.hpp | */fwd.hpp) limit=100000 ;; esac
  lines=$(grep -cvE '^((inline )?namespace [a-z0-9_:]+ \{|\}  // namespace .*)$' "$file")  # namespaces stand a line each
  if [ "$lines" -gt "$limit" ]; then fault "$file: $lines lines, at most $limit are allowed; split it by concept"; fi
  if ! grep -q '^#pragma once' "$file"; then fault "$file: #pragma once is missing"; fi

  while IFS= read -r include; do
    number=${include%%:*}
    name=$(printf '%s\n' "$include" | sed 's/^[0-9]*:[[:space:]]*#[[:space:]]*include[[:space:]]*//; s/^\([<"][^>"]*[>"]\).*/\1/')
    case $name in
      '"'*) fault "$file:$number: $name: write <guild/...>, so that the file means the same from everywhere" ;;
      '<guild/'*/*)
        other=${name#'<guild/'}
        other=${other%%/*}
        case " $floors " in
          *" $other "*) ;;
          *) fault "$file:$number: $floor includes $name from a floor above or beside it" ;;
        esac
        target=${name#'<guild/'}
        if [ ! -e "$root/${target%>}" ]; then fault "$file:$number: $name does not exist"; fi
        case $inside:$target in
          ops/*/cpu/*:* | cpu.hpp:* | guild.hpp:*) ;;
          *:ops/*/cpu/*) fault "$file:$number: $name is the CPU's; guild/cpu.hpp alone brings it, so that other devices do without" ;;
        esac
        ;;
      '<guild/'*)
        if [ "$floor" != top ]; then fault "$file:$number: $name must not be included from inside the library"; fi ;;
      '<iostream>' | '<regex>' | '<ranges>' | '<format>' | '<nlohmann/'*)
        fault "$file:$number: $name costs every includer compile time; the library does without" ;;
      '<jansson.h>' | '<pcre2.h>' | '<utf8proc.h>' | '<xxhash.h>')
        if [ "$floor" != io ]; then fault "$file:$number: $name belongs to io alone"; fi ;;
      '<Eigen/'*) fault "$file:$number: Eigen is an oracle of the tests, not a dependency of the library" ;;
      '<cuda'* | '<cub/'* | '<thrust/'* | '<cublas'*)
        case $inside in
          *.cuh) ;;
          *) fault "$file:$number: $name is CUDA; a .hpp compiles without it" ;;
        esac
        ;;
    esac
  done < <(grep -nE '^[[:space:]]*#[[:space:]]*include' "$file")
  # A .hpp reaching a .cuh would need nvcc.
  case $inside in
    *.hpp) if grep -nE '#[[:space:]]*include[[:space:]]*<guild/.*\.cuh>' "$file"; then fault "$file: a .hpp includes a .cuh"; fi ;;
  esac
done < <(find "$root" -name '*.hpp' -o -name '*.cuh' | LC_ALL=C sort)

if [ "$faults" -gt 0 ]; then
  echo "$faults faults"
  exit 1
fi
echo "include rules hold"
