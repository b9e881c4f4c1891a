# Flags of guild's own programs (tests, examples, benchmarks). Nothing here reaches a project that uses guild.
if(PROJECT_IS_TOP_LEVEL)
  if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
  endif()
  find_program(GUILD_CCACHE ccache)
  mark_as_advanced(GUILD_CCACHE)
  if(GUILD_CCACHE AND NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
    set(CMAKE_CXX_COMPILER_LAUNCHER "${GUILD_CCACHE}")
  endif()
endif()
set(CMAKE_CXX_EXTENSIONS OFF)

add_library(guild_own INTERFACE)
target_compile_options(guild_own INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wconversion;-Wshadow>"
  "$<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${GUILD_WERROR}>>:-Werror>")
if(GUILD_SANITIZE)
  target_compile_options(guild_own INTERFACE -fsanitize=${GUILD_SANITIZE} -fno-omit-frame-pointer
                         -fno-sanitize-recover=all)
  target_link_options(guild_own INTERFACE -fsanitize=${GUILD_SANITIZE})
endif()
