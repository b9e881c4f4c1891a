# guild_add_spec(<target> CONFIG <config.json> NAME <Name>)
#
# Writes the numbers of a published model as a Spec: `#include <Name.hpp>` in <target> gives `struct Name`, with
# `Name::config` as it would be typed by hand. The header lies in guild_specs/ of the build folder and is written again when
# the JSON changes; a config.json that is no possible model stops the build with the reason.
#
# When cross-compiling, make_spec must run on the building machine: build tools/make_spec.cpp there and set
# GUILD_MAKE_SPEC to the program.
set(GUILD_MAKE_SPEC "" CACHE FILEPATH "The program make_spec for guild_add_spec; empty: it is built")
mark_as_advanced(GUILD_MAKE_SPEC)

function(guild_add_spec target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "CONFIG;NAME" "")
  if(NOT TARGET ${target} OR NOT arg_CONFIG OR NOT arg_NAME OR arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "guild_add_spec(<target> CONFIG <config.json> NAME <Name>): "
                        "the target must exist, CONFIG and NAME must be given, and nothing else "
                        "(target \"${target}\", CONFIG \"${arg_CONFIG}\", NAME \"${arg_NAME}\", "
                        "not understood \"${arg_UNPARSED_ARGUMENTS}\")")
  endif()
  if(NOT arg_NAME MATCHES "^[A-Za-z_][A-Za-z0-9_]*$")
    message(FATAL_ERROR "guild_add_spec: NAME \"${arg_NAME}\" must be a C++ identifier such as MySpec")
  endif()
  get_filename_component(config "${arg_CONFIG}" ABSOLUTE)
  if(NOT EXISTS "${config}")
    message(FATAL_ERROR "guild_add_spec: CONFIG \"${config}\" does not exist")
  endif()

  _guild_make_spec(program)
  set(folder "${CMAKE_CURRENT_BINARY_DIR}/guild_specs")
  set(header "${folder}/${arg_NAME}.hpp")
  file(MAKE_DIRECTORY "${folder}")
  add_custom_command(OUTPUT "${header}"
                     COMMAND ${program} "${config}" ${arg_NAME} "${header}"
                     DEPENDS "${config}" ${program}
                     COMMENT "Writing the Spec ${arg_NAME} from ${arg_CONFIG}"
                     VERBATIM)

  # A target of its own, so that several targets of one folder can share a Spec.
  string(MAKE_C_IDENTIFIER "${header}" id)
  string(SHA1 id "${id}")
  string(SUBSTRING "${id}" 0 8 id)
  set(writer guild_spec_${arg_NAME}_${id})
  get_property(known DIRECTORY PROPERTY guild_spec_of_${arg_NAME})
  if(NOT TARGET ${writer})
    add_custom_target(${writer} DEPENDS "${header}")
    set_property(DIRECTORY PROPERTY guild_spec_of_${arg_NAME} "${config}")
  elseif(NOT known STREQUAL config)
    message(FATAL_ERROR "guild_add_spec: NAME ${arg_NAME} stands for ${known} in this folder already")
  endif()
  add_dependencies(${target} ${writer})

  get_target_property(kind ${target} TYPE)
  if(kind STREQUAL "INTERFACE_LIBRARY")
    target_include_directories(${target} INTERFACE "$<BUILD_INTERFACE:${folder}>")
  elseif(kind STREQUAL "EXECUTABLE")
    target_include_directories(${target} PRIVATE "${folder}")
  else()
    target_include_directories(${target} PUBLIC "$<BUILD_INTERFACE:${folder}>")
  endif()
endfunction()

# The program make_spec, built once for the whole project.
function(_guild_make_spec result)
  if(GUILD_MAKE_SPEC)
    set(${result} "${GUILD_MAKE_SPEC}" PARENT_SCOPE)
    return()
  endif()
  if(CMAKE_CROSSCOMPILING AND NOT CMAKE_CROSSCOMPILING_EMULATOR)
    message(FATAL_ERROR "guild_add_spec: build tools/make_spec.cpp for this machine and set GUILD_MAKE_SPEC to it")
  endif()
  if(NOT TARGET guild::io)
    message(FATAL_ERROR "guild_add_spec needs the target guild::io, and so jansson, PCRE2, xxHash and utf8proc "
                        "(Debian: libjansson-dev libpcre2-dev libxxhash-dev libutf8proc-dev)")
  endif()
  if(NOT TARGET guild_make_spec)
    # In the source tree the file lies in tools/, installed beside this file or in share/guild/ of the same prefix.
    set(here "${CMAKE_CURRENT_FUNCTION_LIST_DIR}")
    find_file(source make_spec.cpp NO_CACHE NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH
              PATHS "${here}/../tools" "${here}" "${here}/../../../share/guild" "${here}/../../../../share/guild")
    if(NOT source)
      message(FATAL_ERROR "guild_add_spec: make_spec.cpp is not where guild was installed; install guild again")
    endif()
    add_executable(guild_make_spec EXCLUDE_FROM_ALL "${source}")
    target_link_libraries(guild_make_spec PRIVATE guild::io)
    target_compile_features(guild_make_spec PRIVATE cxx_std_20)
    set_target_properties(guild_make_spec PROPERTIES CXX_EXTENSIONS OFF CXX_CLANG_TIDY "" EXCLUDE_FROM_ALL ON)
  endif()
  set(${result} guild_make_spec PARENT_SCOPE)
endfunction()
