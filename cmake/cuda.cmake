# hone-cuda.so, the CUDA back end: a plug-in that the programs load at run time from
# lib/hone/. Nothing else needs it, to build or to start.
#
#   -DHONE_CUDA=AUTO|ON|OFF    AUTO (default): where a toolkit (12.x, 13.x) is found
#   -DHONE_CUDA_ARCHS=80;90    machine code for these; "all" for every GPU the toolkit and
#                              Hone know, and PTX of the newest
set(HONE_CUDA AUTO CACHE STRING "build the CUDA back end: AUTO, ON or OFF")
set_property(CACHE HONE_CUDA PROPERTY STRINGS AUTO ON OFF)
set(HONE_CUDA_ARCHS "80;90" CACHE STRING "GPU architectures, or all")

if(NOT HONE_CUDA STREQUAL OFF)
    find_program(HONE_NVCC nvcc HINTS ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin)
endif()
if(HONE_NVCC)
    get_filename_component(cuda_bin ${HONE_NVCC} REALPATH)
    get_filename_component(cuda_bin ${cuda_bin} DIRECTORY)
    get_filename_component(cuda_home ${cuda_bin} DIRECTORY)
    find_path(HONE_CUDA_INCLUDE cublasLt.h HINTS ${cuda_home}/include NO_DEFAULT_PATH)
    find_library(HONE_CUDART cudart_static HINTS ${cuda_home}/lib64 NO_DEFAULT_PATH)
    find_library(HONE_CUBLASLT cublasLt HINTS ${cuda_home}/lib64 NO_DEFAULT_PATH)
endif()
if(HONE_NVCC AND HONE_CUDA_INCLUDE)
    set(HONE_CUDA_HEADERS ON) # enough for the emulator of tests/cuda_emu
    include(CheckLanguage)
    check_language(CXX)
endif()
if(HONE_CUDA_HEADERS AND CMAKE_CXX_COMPILER)
    enable_language(CXX)
    set(CMAKE_CXX_STANDARD 17)
    set(CMAKE_CXX_FLAGS_RELEASE "-O2 -g1")
else()
    set(HONE_CUDA_HEADERS OFF)
endif()

file(GLOB cuda_kernels CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cuda/*.cu)
file(GLOB cuda_hosts CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cuda/*.c)
list(APPEND cuda_hosts ${PROJECT_SOURCE_DIR}/kernels/fail.c ${PROJECT_SOURCE_DIR}/base/mem.c)

if(NOT HONE_CUDA_HEADERS OR NOT HONE_CUDART OR NOT HONE_CUBLASLT)
    if(HONE_CUDA STREQUAL ON)
        message(FATAL_ERROR "HONE_CUDA=ON needs a CUDA toolkit with cuBLASLt "
            "(set CUDA_HOME): nvcc '${HONE_NVCC}', cublasLt '${HONE_CUBLASLT}'")
    endif()
    message(STATUS "CUDA back end: not built")
    return()
endif()
if(HONE_SANITIZE) # its host code is checked in the emulator
    return()
endif()

if(HONE_CUDA_ARCHS STREQUAL all)
    execute_process(COMMAND ${HONE_NVCC} --list-gpu-arch OUTPUT_VARIABLE known)
    set(archs "")
    foreach(arch 70 75 80 86 89 90 100 120)
        if(known MATCHES "compute_${arch}\n")
            list(APPEND archs ${arch})
            set(newest ${arch})
        endif()
    endforeach()
else()
    set(archs ${HONE_CUDA_ARCHS})
endif()
set(gencode "")
foreach(arch IN LISTS archs)
    list(APPEND gencode -gencode arch=compute_${arch},code=sm_${arch})
endforeach()
if(newest)
    list(APPEND gencode -gencode arch=compute_${newest},code=compute_${newest})
endif()
message(STATUS "CUDA back end: ${HONE_NVCC}, ${archs}")

set(nvcc_flags -std=c++17 -O3 -lineinfo ${gencode} -D_GNU_SOURCE -I${PROJECT_SOURCE_DIR}
    -Xcompiler -Wall,-Wextra,-fPIC,-fvisibility=hidden)
if(HONE_WERROR)
    list(APPEND nvcc_flags --Werror all-warnings)
endif()
if(HONE_WERROR AND NOT HONE_CUDA_ARCHS STREQUAL all) # on other GPUs some bytes are spilled
    list(APPEND nvcc_flags -Xptxas --warn-on-spills)
endif()
set(objects "")
foreach(source IN LISTS cuda_kernels)
    get_filename_component(name ${source} NAME_WE)
    set(object ${PROJECT_BINARY_DIR}/cuda/${name}.o)
    add_custom_command(OUTPUT ${object}
        COMMAND ${CMAKE_COMMAND} -E make_directory ${PROJECT_BINARY_DIR}/cuda
        COMMAND ${CCACHE} ${HONE_NVCC} ${nvcc_flags} -MD -MF ${object}.d -c ${source} -o ${object}
        DEPENDS ${source} DEPFILE ${object}.d COMMENT "CUDA ${name}" VERBATIM)
    list(APPEND objects ${object})
endforeach()
add_library(hone-cuda MODULE ${cuda_hosts} ${objects})
set_target_properties(hone-cuda PROPERTIES PREFIX "" C_VISIBILITY_PRESET hidden
    LINKER_LANGUAGE CXX LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/lib/hone)
target_include_directories(hone-cuda SYSTEM PRIVATE ${HONE_CUDA_INCLUDE})
target_link_libraries(hone-cuda PRIVATE ${HONE_CUBLASLT} ${HONE_CUDART} Threads::Threads
    ${CMAKE_DL_LIBS} rt m)
target_link_options(hone-cuda PRIVATE -Wl,-z,defs -Wl,--exclude-libs,ALL
    -static-libstdc++ -static-libgcc)
install(TARGETS hone-cuda LIBRARY DESTINATION lib/hone)
