# Runs the examples and compares what they print: tests/examples/expected/<example>[.<case>].txt. See compare.cmake.
file(GLOB expected CONFIGURE_DEPENDS examples/expected/*.txt)
foreach(file ${expected})
  get_filename_component(case "${file}" NAME)
  string(REGEX REPLACE "\\.txt$" "" case "${case}")
  string(REGEX REPLACE "\\..*$" "" example "${case}")
  if(TARGET ${example})
    add_test(NAME examples.${case} COMMAND "${CMAKE_COMMAND}" -DPROGRAM=$<TARGET_FILE:${example}> -DEXPECTED=${file}
             -P "${CMAKE_CURRENT_SOURCE_DIR}/examples/compare.cmake" WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
    set_tests_properties(examples.${case} PROPERTIES LABELS examples TIMEOUT 300)
  endif()
endforeach()
