#!/usr/bin/env bash
# run.sh WAY FOLDER: builds and runs tests/consumers/main.cpp as another project would, in FOLDER (removed first).
set -eu
way=$1 work=$2
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
CXX=${CXX:-g++} CMAKE=${CMAKE:-cmake}
if [ -z "${CMAKE_GENERATOR:-}" ] && command -v ninja > /dev/null; then export CMAKE_GENERATOR=Ninja; fi
rm -rf "$work"
mkdir -p "$work"

install_guild() {
  "$CMAKE" -S "$root" -B "$work/guild" -DCMAKE_CXX_COMPILER="$CXX" -DGUILD_BUILD_TESTS=OFF -DGUILD_BUILD_EXAMPLES=OFF \
    -DCMAKE_INSTALL_PREFIX="$work/first" > "$work/log"
  "$CMAKE" --install "$work/guild" >> "$work/log"
  mv "$work/first" "$work/moved"  # an installed tree may be moved
}

build() {  # build SOURCE OPTIONS...
  "$CMAKE" -S "$1" -B "$work/build" -DCMAKE_CXX_COMPILER="$CXX" "${@:2}"
  "$CMAKE" --build "$work/build"
  "$work/build/consumer" > "$work/output"
}

case $way in
  find_package) install_guild; build "$here/find_package" -DCMAKE_PREFIX_PATH="$work/moved" ;;
  add_subdirectory) build "$here/add_subdirectory" -DGUILD_ROOT="$root" ;;
  fetch_content) build "$here/fetch_content" -DGUILD_ROOT="$root" ;;
  pkg_config)
    if ! command -v pkg-config > /dev/null; then echo "pkg-config is not installed"; exit 1; fi
    install_guild
    flags=$(PKG_CONFIG_PATH="$(find "$work/moved" -name pkgconfig)" pkg-config --cflags --libs guild)
    "$CXX" -std=c++20 "$here/main.cpp" $flags -o "$work/consumer"
    "$work/consumer" > "$work/output"
    ;;
  *) echo "unknown way: $way"; exit 2 ;;
esac

cat "$work/output"
[ "$(cat "$work/output")" = "61 layers, deepseek_v3, 63" ]
