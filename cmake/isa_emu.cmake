# The kernels once more with AVX-512, AVX512_BF16 and AMX emulated (tests/op/isa_emu), so
# that their loops are tested on machines without them: every operator test with HONE_ISA =
# amx (f32 loops of AVX-512, bf16 by AMX), the matrix products with the other levels too.
if(NOT CMAKE_C_COMPILER_ID STREQUAL "GNU" OR NOT CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
    return()
endif()
file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/*.c
    ${PROJECT_SOURCE_DIR}/kernels/ref/*.c ${PROJECT_SOURCE_DIR}/kernels/cpu/*.c
    ${PROJECT_SOURCE_DIR}/tests/op/isa_emu/*.c)
list(FILTER sources EXCLUDE REGEX "kernels/cpu/features\\.c|isa_emu/test_")
list(APPEND sources ${PROJECT_SOURCE_DIR}/tests/op/mirror.c)
add_library(hone_kernels_emulated OBJECT ${sources})
target_include_directories(hone_kernels_emulated BEFORE PRIVATE
    ${PROJECT_SOURCE_DIR}/tests/op/isa_emu)
target_compile_definitions(hone_kernels_emulated PRIVATE SIMD_EMULATED)
target_compile_options(hone_kernels_emulated PRIVATE -Wno-psabi)

# emulated(<name> <source> <level>...): the ctests op_emulated_<level>_<name>. Emulation
# under sanitizers takes minutes: there the golden tests below stand for these.
set(emulated_label quick)
if(HONE_SANITIZE)
    set(emulated_label slow)
endif()
function(emulated name source)
    add_executable(emulated_${name} ${PROJECT_SOURCE_DIR}/tests/op/${source}
        $<TARGET_OBJECTS:hone_kernels_emulated>)
    target_link_libraries(emulated_${name} PRIVATE hone_base m cmocka)
    set_target_properties(emulated_${name} PROPERTIES
        RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
    foreach(level IN LISTS ARGN)
        add_test(NAME op_emulated_${level}_${name} COMMAND emulated_${name}
            WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
        set_tests_properties(op_emulated_${level}_${name} PROPERTIES
            LABELS ${emulated_label} TIMEOUT 300 ENVIRONMENT HONE_ISA=${level})
    endforeach()
endfunction()
emulated(level isa_emu/test_level.c amx avx512_bf16 avx512)
emulated(matmul test_matmul.c amx avx512_bf16 avx512)
foreach(name act norm attention tokens loss train)
    emulated(${name} test_${name}.c amx)
endforeach()

# Whole programs too: these objects come first, so nothing of the true kernels is linked.
add_executable(emulated_golden ${PROJECT_SOURCE_DIR}/tests/golden/test_bf16.c
    $<TARGET_OBJECTS:hone_kernels_emulated>)
target_link_libraries(emulated_golden PRIVATE hone_worker cmocka)
set_target_properties(emulated_golden PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
add_executable(hone_worker_emulated ${PROJECT_SOURCE_DIR}/worker/main.c
    $<TARGET_OBJECTS:hone_kernels_emulated>)
target_link_libraries(hone_worker_emulated PRIVATE hone_worker)
set_target_properties(hone_worker_emulated PROPERTIES OUTPUT_NAME hone-worker
    RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests/emulated)
foreach(level amx avx512_bf16)
    add_test(NAME golden_emulated_${level}_bf16 COMMAND emulated_golden
        WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set(label ${emulated_label})
    if(level STREQUAL amx) # AVX-512 and AMX in one
        set(label quick)
    endif()
    set_tests_properties(golden_emulated_${level}_bf16 PROPERTIES LABELS ${label} TIMEOUT 600
        ENVIRONMENT "HONE_SHARED=${HONE_SHARED};HONE_ISA=${level}")
    add_test(NAME e2e_emulated_${level}_bf16 COMMAND bash tests/e2e/bf16.sh
        WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(e2e_emulated_${level}_bf16 PROPERTIES LABELS slow TIMEOUT 600
        ENVIRONMENT
        "HONE_BIN=${CMAKE_RUNTIME_OUTPUT_DIRECTORY};HONE_ISA=${level};HONE_WORKER=${PROJECT_BINARY_DIR}/tests/emulated/hone-worker")
endforeach()
