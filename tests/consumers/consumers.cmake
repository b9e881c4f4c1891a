# How other projects take guild in: each way once, from outside, with a program that includes guild and runs.
foreach(way find_package add_subdirectory fetch_content pkg_config)
  add_test(NAME consumers.${way} COMMAND "${GUILD_BASH}" "${CMAKE_CURRENT_SOURCE_DIR}/consumers/run.sh" ${way}
           "${CMAKE_CURRENT_BINARY_DIR}/consumers/${way}")
  set_tests_properties(consumers.${way} PROPERTIES LABELS consumers TIMEOUT 300
    ENVIRONMENT "CXX=${CMAKE_CXX_COMPILER};CMAKE=${CMAKE_COMMAND};CMAKE_GENERATOR=${CMAKE_GENERATOR}")
endforeach()
