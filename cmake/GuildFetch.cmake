# Pinned sources of the four libraries that guild::io needs, for systems that do not package them.
include(FetchContent)
enable_language(C)

FetchContent_Declare(guild_jansson
  GIT_REPOSITORY https://github.com/akheron/jansson.git
  GIT_TAG 684e18c927e89615c2d501737e90018f4930d6c5)  # v2.14
FetchContent_Declare(guild_pcre2
  GIT_REPOSITORY https://github.com/PCRE2Project/pcre2.git
  GIT_TAG 2dce7761b1831fd3f82a9c2bd5476259d945da4d  # pcre2-10.45
  GIT_SUBMODULES "")
FetchContent_Declare(guild_xxhash
  GIT_REPOSITORY https://github.com/Cyan4973/xxHash.git
  GIT_TAG bbb27a5efb85b92a0486cf361a8635715a53f6ba)  # v0.8.2
FetchContent_Declare(guild_utf8proc
  GIT_REPOSITORY https://github.com/JuliaStrings/utf8proc.git
  GIT_TAG 34db3f7954e9298e89f42641ac78e0450f80a70d)  # v2.9.0

# A function, so that the settings below do not reach the host project.
function(guild_fetch)
  set(CMAKE_POLICY_DEFAULT_CMP0077 NEW)  # options yield to the plain variables set here
  set(CMAKE_POLICY_VERSION_MINIMUM 3.5)
  set(CMAKE_WARN_DEPRECATED OFF)
  set(BUILD_SHARED_LIBS OFF)
  set(JANSSON_EXAMPLES OFF)
  set(JANSSON_BUILD_DOCS OFF)
  set(JANSSON_WITHOUT_TESTS ON)
  set(PCRE2_BUILD_PCRE2GREP OFF)
  set(PCRE2_BUILD_TESTS OFF)
  set(PCRE2_SHOW_REPORT OFF)
  foreach(name jansson pcre2)
    FetchContent_GetProperties(guild_${name})
    if(NOT guild_${name}_POPULATED)
      FetchContent_Populate(guild_${name})
      add_subdirectory("${guild_${name}_SOURCE_DIR}" "${guild_${name}_BINARY_DIR}" EXCLUDE_FROM_ALL)
    endif()
  endforeach()
  add_library(guild::jansson INTERFACE IMPORTED GLOBAL)
  target_link_libraries(guild::jansson INTERFACE jansson)
  target_include_directories(guild::jansson SYSTEM INTERFACE "${guild_jansson_BINARY_DIR}/include")
  add_library(guild::pcre2 INTERFACE IMPORTED GLOBAL)
  target_link_libraries(guild::pcre2 INTERFACE pcre2-8-static)
  target_include_directories(guild::pcre2 SYSTEM INTERFACE "${guild_pcre2_BINARY_DIR}")
  target_compile_definitions(guild::pcre2 INTERFACE PCRE2_STATIC)
  # Their own CMakeLists.txt would change the host's build type or install files; each library is one file.
  FetchContent_GetProperties(guild_xxhash)
  if(NOT guild_xxhash_POPULATED)
    FetchContent_Populate(guild_xxhash)
  endif()
  add_library(guild_xxhash_static STATIC EXCLUDE_FROM_ALL "${guild_xxhash_SOURCE_DIR}/xxhash.c")
  set_target_properties(guild_xxhash_static PROPERTIES POSITION_INDEPENDENT_CODE ON)
  add_library(guild::xxhash INTERFACE IMPORTED GLOBAL)
  target_link_libraries(guild::xxhash INTERFACE guild_xxhash_static)
  target_include_directories(guild::xxhash SYSTEM INTERFACE "${guild_xxhash_SOURCE_DIR}")
  FetchContent_GetProperties(guild_utf8proc)
  if(NOT guild_utf8proc_POPULATED)
    FetchContent_Populate(guild_utf8proc)
  endif()
  add_library(guild_utf8proc_static STATIC EXCLUDE_FROM_ALL "${guild_utf8proc_SOURCE_DIR}/utf8proc.c")
  set_target_properties(guild_utf8proc_static PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_compile_definitions(guild_utf8proc_static PUBLIC UTF8PROC_STATIC)
  add_library(guild::utf8proc INTERFACE IMPORTED GLOBAL)
  target_link_libraries(guild::utf8proc INTERFACE guild_utf8proc_static)
  target_include_directories(guild::utf8proc SYSTEM INTERFACE "${guild_utf8proc_SOURCE_DIR}")
endfunction()
guild_fetch()
