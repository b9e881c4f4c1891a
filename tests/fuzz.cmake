# Each tests/fuzz/<name>_fuzz.cpp is replayed over tests/fuzz/corpus/<name>/ by a plain program: any compiler, no libFuzzer.
# The CI builds the same files with clang's fuzzer and searches on.
file(GLOB fuzzers CONFIGURE_DEPENDS fuzz/*_fuzz.cpp)
foreach(source ${fuzzers})
  get_filename_component(name "${source}" NAME_WE)
  string(REGEX REPLACE "_fuzz$" "" name "${name}")
  add_executable(replay_${name} "${source}" rules/replay_main.cpp)
  target_link_libraries(replay_${name} PRIVATE guild::io guild_own)
  target_compile_definitions(replay_${name} PRIVATE GUILD_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  add_test(NAME fuzz.replay_${name} COMMAND replay_${name} "${CMAKE_CURRENT_SOURCE_DIR}/fuzz/corpus/${name}")
  set_tests_properties(fuzz.replay_${name} PROPERTIES LABELS fuzz TIMEOUT 120)
endforeach()
