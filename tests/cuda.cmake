# tests/cuda: compiled by nvcc for two architectures; a program that finds no GPU ends with 77, which counts as skipped.
# Each .cu with a main is a program; link_*.cu and link_*.cpp are one program of both compilers.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real)
endif()
enable_language(CUDA)
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know the flag for every nvcc that has it
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
endif()

file(GLOB cuda_sources CONFIGURE_DEPENDS cuda/*.cu)
file(GLOB cuda_link_sources CONFIGURE_DEPENDS cuda/link_*.cpp cuda/link_*.cu)
list(REMOVE_ITEM cuda_sources ${cuda_link_sources})

function(guild_cuda_test name)
  add_executable(cuda_${name} ${ARGN})
  target_link_libraries(cuda_${name} PRIVATE guild::cuda guild_own)
  target_compile_definitions(cuda_${name} PRIVATE GUILD_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  set_target_properties(cuda_${name} PROPERTIES CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON)
  target_compile_options(cuda_${name} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr>")
  add_test(NAME cuda.${name} COMMAND cuda_${name})
  set_tests_properties(cuda.${name} PROPERTIES LABELS cuda TIMEOUT 300 SKIP_RETURN_CODE 77)
  add_dependencies(cuda_tests cuda_${name})
endfunction()

add_custom_target(cuda_tests)
foreach(source ${cuda_sources})
  get_filename_component(name "${source}" NAME_WE)
  guild_cuda_test(${name} "${source}")
endforeach()
if(cuda_link_sources)
  guild_cuda_test(link ${cuda_link_sources})
endif()
