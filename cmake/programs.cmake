# hone, honed and hone-worker, into one bin/ both in the build tree and when installed.
include(GNUInstallDirs)

function(hone_program name)
    cmake_parse_arguments(P "" "" "SOURCES;DEPS" ${ARGN})
    if(NOT P_SOURCES)
        return()
    endif()
    add_executable(${name} ${P_SOURCES})
    target_link_libraries(${name} PRIVATE ${P_DEPS})
    install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endfunction()

file(GLOB worker_main CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/worker/*.c)
file(GLOB daemon_main CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/daemon/main/*.c)
file(GLOB command_main CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/launcher/*.c)
hone_program(hone-worker SOURCES ${worker_main} DEPS hone_worker)
hone_program(honed SOURCES ${daemon_main} DEPS hone_daemon)
hone_program(hone SOURCES ${command_main} DEPS hone_launcher)
add_dependencies(honed hone-tls hone-http) # loaded when asked for
add_dependencies(hone hone-tls)
if(TARGET hone-mpi)
    add_dependencies(hone-worker hone-mpi)
endif()
if(TARGET hone)
    hone_registry(hone launcher/verb verb verb)
endif()

# Man pages are written by the programs themselves when they are installed (deploy/man.sh).
install(CODE "execute_process(COMMAND_ERROR_IS_FATAL ANY COMMAND
    \"${PROJECT_SOURCE_DIR}/deploy/man.sh\" \"${CMAKE_RUNTIME_OUTPUT_DIRECTORY}\"
    \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_MANDIR}/man1\")")
set(completion ${PROJECT_SOURCE_DIR}/deploy/completion)
install(FILES ${completion}/_hone DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
set(bash ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
set(fish ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
foreach(program hone honed hone-worker) # these shells look for a file of the program's name
    install(FILES ${completion}/hone.bash RENAME ${program} DESTINATION ${bash})
    install(FILES ${completion}/hone.fish RENAME ${program}.fish DESTINATION ${fish})
endforeach()
