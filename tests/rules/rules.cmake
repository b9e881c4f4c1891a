# Tests about the repository itself: include rules, headers alone, the umbrella header, compile time, refused programs.
set(rules_dir "${CMAKE_CURRENT_SOURCE_DIR}/rules")
find_program(GUILD_BASH bash REQUIRED)
mark_as_advanced(GUILD_BASH)

get_target_property(rule_includes guild::jansson INTERFACE_INCLUDE_DIRECTORIES)
get_target_property(rule_includes_pcre2 guild::pcre2 INTERFACE_INCLUDE_DIRECTORIES)
get_target_property(rule_includes_xxhash guild::xxhash INTERFACE_INCLUDE_DIRECTORIES)
get_target_property(rule_includes_utf8proc guild::utf8proc INTERFACE_INCLUDE_DIRECTORIES)
list(APPEND rule_includes ${rule_includes_pcre2} ${rule_includes_xxhash} ${rule_includes_utf8proc})
list(REMOVE_DUPLICATES rule_includes)
list(REMOVE_ITEM rule_includes /usr/include)
list(TRANSFORM rule_includes PREPEND "-isystem")
list(JOIN rule_includes " " rule_flags)
set(rule_flags "-std=c++20 -I${PROJECT_SOURCE_DIR}/include ${rule_flags}")

# guild_rule(name command...): a test of the repository; the compiler and its flags come as CXX and FLAGS.
function(guild_rule name)
  cmake_parse_arguments(PARSE_ARGV 1 rule "" "" "COMMAND")
  add_test(NAME rules.${name} COMMAND ${rule_COMMAND} WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
  set_tests_properties(rules.${name} PROPERTIES LABELS rules TIMEOUT 1200
    ENVIRONMENT "CXX=${CMAKE_CXX_COMPILER};FLAGS=${rule_flags};WORK=${CMAKE_CURRENT_BINARY_DIR}/rules")
endfunction()

guild_rule(includes COMMAND "${GUILD_BASH}" "${rules_dir}/includes.sh" include/guild)
guild_rule(includes_finds_faults COMMAND "${GUILD_BASH}" "${rules_dir}/includes_test.sh")
guild_rule(device_views COMMAND "${GUILD_BASH}" "${rules_dir}/device_views.sh" include/guild)
guild_rule(umbrella COMMAND "${GUILD_BASH}" "${rules_dir}/update_umbrella.sh" --check)
guild_rule(ctags COMMAND "${GUILD_BASH}" "${rules_dir}/ctags.sh")
set_tests_properties(rules.ctags PROPERTIES SKIP_RETURN_CODE 77)
guild_rule(mirrored_tests COMMAND "${GUILD_BASH}" "${rules_dir}/mirrored_tests.sh")
guild_rule(machine_flags COMMAND "${GUILD_BASH}" "${rules_dir}/machine_flags.sh")
guild_rule(headers_alone COMMAND "${GUILD_BASH}" "${rules_dir}/headers_alone.sh")
guild_rule(compile_time COMMAND "${GUILD_BASH}" "${rules_dir}/compile_time.sh")
set_tests_properties(rules.headers_alone PROPERTIES PROCESSORS 2)
set_tests_properties(rules.compile_time PROPERTIES RUN_SERIAL ON)  # its figures mean nothing beside other work

# tests/compile_fail/<name>.cpp must be refused with the sentence in its `// expect: ` comment.
file(GLOB refused CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/compile_fail/*.cpp")
foreach(source ${refused})
  get_filename_component(name "${source}" NAME_WE)
  guild_rule(refuses_${name} COMMAND "${GUILD_BASH}" "${rules_dir}/compile_fail.sh" "${source}")
endforeach()

# Two translation units with different Specs in one program.
file(GLOB odr CONFIGURE_DEPENDS "${rules_dir}/two_specs/*.cpp")
if(odr)
  add_executable(two_specs ${odr})
  target_link_libraries(two_specs PRIVATE guild::io guild_own)
  add_test(NAME rules.two_specs COMMAND two_specs)
  set_tests_properties(rules.two_specs PROPERTIES LABELS rules TIMEOUT 60)
endif()

# docs/snippets/*.cpp: the programs shown in the documentation.
file(GLOB snippets CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/docs/snippets/*.cpp")
foreach(source ${snippets})
  get_filename_component(name "${source}" NAME_WE)
  add_executable(snippet_${name} "${source}")
  target_link_libraries(snippet_${name} PRIVATE guild::io guild_own)
  file(STRINGS "${source}" first LIMIT_COUNT 1)
  if(NOT first MATCHES "compile only")
    add_test(NAME docs.${name} COMMAND snippet_${name} WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
    set_tests_properties(docs.${name} PROPERTIES LABELS docs TIMEOUT 120)
  endif()
endforeach()
guild_rule(docs_show_the_snippets COMMAND "${GUILD_BASH}" "${rules_dir}/snippets.sh")
