# guild::guild (headers, C++20, threads), guild::io (and jansson, PCRE2), guild::cuda (and the CUDA runtime, cuBLASLt).
include(GNUInstallDirs)

add_library(guild_guild INTERFACE)
add_library(guild::guild ALIAS guild_guild)
set_target_properties(guild_guild PROPERTIES EXPORT_NAME guild)
target_compile_features(guild_guild INTERFACE cxx_std_20)
target_include_directories(guild_guild INTERFACE
  "$<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/include>"
  "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
target_link_libraries(guild_guild INTERFACE Threads::Threads)
set(guild_targets guild_guild)

if(TARGET guild::jansson AND TARGET guild::pcre2)
  add_library(guild_io INTERFACE)
  add_library(guild::io ALIAS guild_io)
  set_target_properties(guild_io PROPERTIES EXPORT_NAME io)
  target_link_libraries(guild_io INTERFACE guild_guild guild::jansson guild::pcre2)
  list(APPEND guild_targets guild_io)
else()
  list(JOIN guild_missing_dependencies " " guild_missing_text)
  set(guild_missing_text "guild::io needs ${guild_missing_text} (Debian package names): install them, "
      "or configure with -DGUILD_FETCH_DEPENDENCIES=ON")
  list(JOIN guild_missing_text "" guild_missing_text)
  if(PROJECT_IS_TOP_LEVEL)
    message(FATAL_ERROR "${guild_missing_text}")
  endif()
  message(STATUS "${guild_missing_text}; only guild::guild is defined now")
endif()

set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL ON)
find_package(CUDAToolkit QUIET)
unset(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL)
if(TARGET CUDA::cudart AND TARGET CUDA::cublasLt)
  add_library(guild_cuda INTERFACE)
  add_library(guild::cuda ALIAS guild_cuda)
  set_target_properties(guild_cuda PROPERTIES EXPORT_NAME cuda)
  target_link_libraries(guild_cuda INTERFACE guild_guild CUDA::cudart CUDA::cublasLt)
endif()
