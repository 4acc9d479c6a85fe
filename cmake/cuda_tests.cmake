# The CUDA back end on the CPU (tests/cuda_emu/README.md): the same sources, compiled as C++
# for the host, with emulated CUDA libraries, as a plug-in that HONE_CUDA_PLUGIN names.
if(NOT HONE_CUDA_HEADERS)
    add_test(NAME cuda_emu COMMAND sh -c "echo 'skipped: no CUDA toolkit'; exit 77")
    set_tests_properties(cuda_emu PROPERTIES LABELS quick SKIP_RETURN_CODE 77)
    return()
endif()
set(emu_flags $<$<COMPILE_LANGUAGE:CXX>:-xc++> $<$<COMPILE_LANGUAGE:CXX>:-DHONE_CUDA_EMU>
    $<$<COMPILE_LANGUAGE:CXX>:-Wno-unknown-pragmas> $<$<COMPILE_LANGUAGE:CXX>:-Wno-shadow>)
if(HONE_SANITIZE)
    list(APPEND emu_flags $<$<COMPILE_LANGUAGE:CXX>:-fsanitize-sections=emu_shared>)
endif()
set(race_flags -O1 -fsanitize=thread -fno-threadsafe-statics)

# hone_emu_objects(<name> <sources> <options>...)
function(hone_emu_objects name sources)
    set_source_files_properties(${sources} PROPERTIES LANGUAGE CXX)
    add_library(${name} OBJECT ${sources})
    set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE ON
        CXX_VISIBILITY_PRESET hidden)
    target_include_directories(${name} SYSTEM PRIVATE ${HONE_CUDA_INCLUDE})
    target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests/cuda_emu)
    target_compile_options(${name} PRIVATE ${emu_flags} ${ARGN})
endfunction()
file(GLOB emulator CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/cuda_emu/*.cc)
hone_emu_objects(emulator "${emulator}")

# hone_emulated(<name> <options for kernels>...): the back end as a plug-in.
function(hone_emulated name)
    hone_emu_objects(${name}_kernels "${cuda_kernels}" ${ARGN})
    add_library(${name} MODULE ${cuda_hosts} $<TARGET_OBJECTS:emulator>
        $<TARGET_OBJECTS:${name}_kernels>)
    set_target_properties(${name} PROPERTIES PREFIX "" C_VISIBILITY_PRESET hidden
        LINKER_LANGUAGE CXX LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
    target_include_directories(${name} SYSTEM PRIVATE ${HONE_CUDA_INCLUDE})
    target_link_libraries(${name} PRIVATE Threads::Threads ${CMAKE_DL_LIBS} m)
    if(NOT HONE_SANITIZE)
        target_link_options(${name} PRIVATE -Wl,-z,defs)
    endif()
endfunction()
hone_emulated(hone-cuda-emu)
add_library(fake_nvtx MODULE ${PROJECT_SOURCE_DIR}/tests/cuda_emu/fake_nvtx.c)
set_target_properties(fake_nvtx PROPERTIES PREFIX "" C_VISIBILITY_PRESET hidden
    LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
target_include_directories(fake_nvtx SYSTEM PRIVATE ${HONE_CUDA_INCLUDE})
target_link_libraries(fake_nvtx PRIVATE ${CMAKE_DL_LIBS})

# The emulator itself: each operation, and planted bugs.
set(emu_kinds plain)
if(NOT HONE_SANITIZE)
    list(APPEND emu_kinds race)
    hone_emulated(hone-cuda-race ${race_flags})
endif()
foreach(kind IN LISTS emu_kinds)
    hone_emu_objects(emu_${kind}_test ${PROJECT_SOURCE_DIR}/tests/cuda_emu/test_emu.cu
        ${${kind}_flags})
    add_executable(emu_${kind} $<TARGET_OBJECTS:emu_${kind}_test> $<TARGET_OBJECTS:emulator>)
    set_target_properties(emu_${kind} PROPERTIES LINKER_LANGUAGE CXX
        RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
    target_link_libraries(emu_${kind} PRIVATE Threads::Threads ${CMAKE_DL_LIBS} m)
endforeach()
hone_script_tests(cuda_emu quick)
foreach(test planted plugin graphs job memory resume tune trace ranks faults mutate sm70)
    set_property(TEST cuda_emu_${test} APPEND PROPERTY ENVIRONMENT
        "HONE_CUDA_TUNE=0" "XDG_CACHE_HOME=${PROJECT_BINARY_DIR}/tests/cache"
        "HONE_TESTS=${PROJECT_BINARY_DIR}/tests" "HONE_CUDA_INCLUDE=${HONE_CUDA_INCLUDE}")
endforeach()
set_tests_properties(cuda_emu_job cuda_emu_ranks cuda_emu_faults cuda_emu_resume
    cuda_emu_mutate cuda_emu_sm70 PROPERTIES LABELS slow)
set_tests_properties(cuda_emu_mutate PROPERTIES TIMEOUT 2400)

# tests/gpu/bench.c works (its numbers here mean nothing).
add_executable(gpu_bench ${PROJECT_SOURCE_DIR}/tests/gpu/bench.c)
target_link_libraries(gpu_bench PRIVATE hone_kernels)
set_target_properties(gpu_bench PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
add_dependencies(gpu_bench hone-cuda-emu)
add_test(NAME cuda_emu_bench COMMAND gpu_bench cuda --tiny)
add_test(NAME cuda_emu_bench_steps COMMAND gpu_bench cuda --tiny --steps)
set_tests_properties(cuda_emu_bench cuda_emu_bench_steps PROPERTIES LABELS quick TIMEOUT 120 ENVIRONMENT
    "HONE_CUDA_TUNE=0;HONE_CUDA_PLUGIN=${PROJECT_BINARY_DIR}/tests/hone-cuda-emu.so")

# tests/op on the emulated back end: streams that run late (an even seed) in the quick tests;
# another order of threads, and the race checker, in the slow ones.
function(hone_emulated_op op name label plugin seed)
    add_dependencies(op_${op} ${plugin})
    add_test(NAME ${name}_${op} COMMAND op_${op} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(${name}_${op} PROPERTIES LABELS ${label} TIMEOUT 900 ENVIRONMENT
        "HONE_TEST_BACKEND=cuda;HONE_CUDA_TUNE=8;EMU_SEED=${seed};EMU_SHARED=64;HONE_CUDA_PLUGIN=${PROJECT_BINARY_DIR}/tests/${plugin}.so")
endfunction()
foreach(op act attention coverage logprob loss matmul norm tokens train)
    hone_emulated_op(${op} cuda_op quick hone-cuda-emu 2)
    if(NOT HONE_SANITIZE)
        hone_emulated_op(${op} cuda_race slow hone-cuda-race 3)
    endif()
endforeach()

# Ranks, layers that are recomputed, products chosen before a step, on emulated devices.
foreach(test unit_dist_device unit_model_recompute unit_model_prepare)
    add_dependencies(${test} hone-cuda-emu)
    set_property(TEST ${test} APPEND PROPERTY ENVIRONMENT
        "HONE_CUDA_TUNE=0;HONE_CUDA_PLUGIN=${PROJECT_BINARY_DIR}/tests/hone-cuda-emu.so")
endforeach()
# Attention on tensor cores: heads of 256 need more than sm_75 has; f16 for older chips.
# Under sanitizers the newest chip's form stands for all.
set(older quick)
if(HONE_SANITIZE)
    set(older slow)
endif()
hone_emulated_op(attention cuda_op_sm75 ${older} hone-cuda-emu 4)
set_property(TEST cuda_op_sm75_attention APPEND PROPERTY ENVIRONMENT EMU_CAPABILITY=75)
hone_emulated_op(attention cuda_op_sm70 ${older} hone-cuda-emu 4)
set_property(TEST cuda_op_sm70_attention APPEND PROPERTY ENVIRONMENT EMU_CAPABILITY=70)
set(attention_tests cuda_op_attention)
if(NOT HONE_SANITIZE)
    hone_emulated_op(attention cuda_race_sm70 slow hone-cuda-race 3)
    set_property(TEST cuda_race_sm70_attention APPEND PROPERTY ENVIRONMENT
        EMU_CAPABILITY=70)
    list(APPEND attention_tests cuda_race_attention)
endif()
set_property(TEST ${attention_tests} APPEND PROPERTY ENVIRONMENT EMU_SHARED=99)
