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

# Trains a smaller model from nothing on small sums, with worked steps: of 100 sums that it never saw, 85 must be right.
if(TARGET train_tiny_r1)
  add_test(NAME examples.train_tiny_r1.small COMMAND train_tiny_r1 --small -t 2 -o "${CMAKE_CURRENT_BINARY_DIR}/tiny-r1")
  set_tests_properties(examples.train_tiny_r1.small PROPERTIES LABELS examples TIMEOUT 900 COST 1000 PROCESSORS 2
                       PASS_REGULAR_EXPRESSION "(8[5-9]|9[0-9]|100) of 100 held-out problems are right")
endif()
