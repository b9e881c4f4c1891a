# Install rules: headers, guildConfig.cmake with its version file, guild.pc, and the Spec writer that guild_add_spec uses.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)
set(guild_cmake_dir "${CMAKE_INSTALL_LIBDIR}/cmake/guild")

target_include_directories(guild_guild INTERFACE "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
install(DIRECTORY include/guild DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
# guild_cuda is not exported: guildConfig.cmake defines it where a CUDA toolkit is found on the user's machine.
install(TARGETS ${guild_targets} EXPORT guildTargets)
install(EXPORT guildTargets NAMESPACE guild:: DESTINATION "${guild_cmake_dir}")

configure_package_config_file(cmake/guildConfig.cmake.in "${CMAKE_CURRENT_BINARY_DIR}/guildConfig.cmake"
                              INSTALL_DESTINATION "${guild_cmake_dir}")
write_basic_package_version_file("${CMAKE_CURRENT_BINARY_DIR}/guildConfigVersion.cmake"
                                 COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/guildConfig.cmake" "${CMAKE_CURRENT_BINARY_DIR}/guildConfigVersion.cmake"
              cmake/GuildDependencies.cmake cmake/GuildFetch.cmake DESTINATION "${guild_cmake_dir}")
install(FILES cmake/GuildAddSpec.cmake DESTINATION "${guild_cmake_dir}" OPTIONAL)
install(FILES tools/make_spec.cpp DESTINATION "${CMAKE_INSTALL_DATADIR}/guild" OPTIONAL)

file(RELATIVE_PATH guild_pc_prefix "${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig" "${CMAKE_INSTALL_PREFIX}")
configure_file(guild.pc.in guild.pc @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/guild.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DOCDIR}" OPTIONAL)
