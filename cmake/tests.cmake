# tests/<folder>/test_<name>.c is the ctest <folder>_<name>; labels: quick, slow.
hone_tests(unit/base quick hone_base)
hone_tests(unit/tok quick hone_tok)
hone_tests(unit/data quick hone_data)
hone_tests(unit/ckpt quick hone_ckpt)
hone_tests(unit/model quick hone_model)
hone_tests(unit/spec quick hone_worker)
hone_tests(unit/dist quick hone_train)
hone_tests(unit/train quick hone_worker)
hone_tests(unit/verb quick hone_worker)
hone_tests(unit/proto quick hone_proto)
hone_tests(unit/daemon quick hone_daemon hone_link)
hone_tests(unit/launcher quick hone_launcher)
target_sources(unit_launcher_report_time PRIVATE ${PROJECT_SOURCE_DIR}/launcher/report_time.c
    ${PROJECT_SOURCE_DIR}/launcher/series.c ${PROJECT_SOURCE_DIR}/launcher/svg.c)
hone_tests(unit/kernels quick hone_kernels)
add_library(hone_mirror STATIC ${PROJECT_SOURCE_DIR}/tests/op/mirror.c)
target_link_libraries(hone_mirror PUBLIC hone_kernels)
hone_tests(op quick hone_mirror)
include(isa_emu)
hone_tests(golden quick hone_worker)
hone_tests(family quick hone_worker)
hone_tests(stage slow hone_worker)

# Plug-ins that are right, or wrong in one way.
foreach(fake good: abi:FAKE_ABI=4242u size:FAKE_SIZE=24u hole:FAKE_HOLE=1 name:FAKE_NAME=hone)
    string(REGEX REPLACE ":.*" "" name ${fake})
    string(REGEX REPLACE "^[^:]*:" "" define ${fake})
    add_library(fake_${name} MODULE ${PROJECT_SOURCE_DIR}/tests/unit/kernels/fake_plugin.c)
    target_compile_definitions(fake_${name} PRIVATE ${define})
    set_target_properties(fake_${name} PROPERTIES PREFIX ""
        LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
    add_dependencies(unit_kernels_plugin fake_${name})
endforeach()
add_library(fake_nvml MODULE ${PROJECT_SOURCE_DIR}/tests/unit/train/fake_nvml.c)
set_target_properties(fake_nvml PROPERTIES PREFIX ""
    LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
foreach(test unit_train_health unit_train_health_watch)
    add_dependencies(${test} fake_nvml)
    set_property(TEST ${test} APPEND PROPERTY
        ENVIRONMENT "HONE_FAKES=${PROJECT_BINARY_DIR}/tests")
endforeach()
target_sources(unit_train_bucket_schedule PRIVATE
    ${PROJECT_SOURCE_DIR}/tests/bench/step_model.c)
set_property(TEST unit_kernels_plugin APPEND PROPERTY
    ENVIRONMENT "HONE_FAKES=${PROJECT_BINARY_DIR}/tests")

# tests/<folder>/<name>.sh is the ctest <folder>_<name>. Exit 77: skipped.
function(hone_script_tests folder label)
    file(GLOB scripts CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/${folder}/*.sh)
    list(FILTER scripts EXCLUDE REGEX "/common.sh$") # sourced by the others
    foreach(script IN LISTS scripts)
        get_filename_component(name ${script} NAME_WE)
        add_test(NAME ${folder}_${name} COMMAND bash ${script}
            WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
        set_tests_properties(${folder}_${name} PROPERTIES LABELS ${label} TIMEOUT 900
            SKIP_RETURN_CODE 77
            ENVIRONMENT "HONE_BIN=${PROJECT_BINARY_DIR}/bin;HONE_SHARED=${HONE_SHARED}")
    endforeach()
endfunction()
hone_script_tests(lint quick)
hone_script_tests(e2e slow)
hone_script_tests(count slow)
# Whole programs with limits in seconds: not beside other tests.
foreach(test e2e_hone_run e2e_daemon e2e_bad_input e2e_predict e2e_wire e2e_elsewhere e2e_report e2e_far e2e_groups e2e_confine e2e_report_slurm unit_daemon_honed
    stage_resume e2e_ranks e2e_hosts)
    if(TEST ${test})
        set_tests_properties(${test} PROPERTIES RUN_SERIAL TRUE)
    endif()
endforeach()
# What takes an hour is run by name alone: ctest --preset release -C long -L long
add_test(NAME long_daemon_kills COMMAND bash ${PROJECT_SOURCE_DIR}/tests/e2e/daemon_kills.sh
    CONFIGURATIONS long WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(long_daemon_kills PROPERTIES LABELS long TIMEOUT 14400
    RUN_SERIAL TRUE SKIP_RETURN_CODE 77
    ENVIRONMENT "RUNS=200;HONE_BIN=${PROJECT_BINARY_DIR}/bin;HONE_SHARED=${HONE_SHARED}")
if(NOT HONE_SANITIZE)
    hone_script_tests(sanitize sanitize)
    set_tests_properties(sanitize_quick PROPERTIES TIMEOUT 2400)
endif()

# hone_fuzz(<name> <libraries>...)
#
# tests/fuzz/fuzz_<name>.c defines LLVMFuzzerTestOneInput. Its corpus,
# tests/fuzz/corpus/<name>/, is replayed as the ctest fuzz_<name> (label quick) with any
# compiler. With clang and -DHONE_FUZZ=ON the libFuzzer program tests/libfuzz_<name> is
# built as well: run it on a copy of the corpus.
function(hone_fuzz name)
    set(source ${PROJECT_SOURCE_DIR}/tests/fuzz/fuzz_${name}.c)
    set(corpus ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${name})
    add_executable(fuzz_${name} ${source} ${PROJECT_SOURCE_DIR}/tests/fuzz/replay.c)
    target_link_libraries(fuzz_${name} PRIVATE ${ARGN})
    set_target_properties(fuzz_${name} PROPERTIES
        RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
    add_test(NAME fuzz_${name} COMMAND fuzz_${name} ${corpus}
        WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(fuzz_${name} PROPERTIES LABELS quick TIMEOUT 120)
    if(HONE_FUZZ)
        add_executable(libfuzz_${name} ${source})
        target_link_libraries(libfuzz_${name} PRIVATE ${ARGN} -fsanitize=fuzzer)
        set_target_properties(libfuzz_${name} PROPERTIES
            RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
    endif()
endfunction()
hone_fuzz(node hone_base)
hone_fuzz(opt hone_base)
hone_fuzz(frame hone_proto)
hone_fuzz(pbjson hone_proto)
hone_fuzz(conn hone_daemon)
hone_fuzz(uplink hone_daemon)
hone_fuzz(http hone_daemon)
hone_fuzz(safetensors hone_ckpt)
hone_fuzz(tokenizer hone_tok)
hone_fuzz(data hone_data)

add_executable(step_table EXCLUDE_FROM_ALL ${PROJECT_SOURCE_DIR}/tests/bench/step_table.c
    ${PROJECT_SOURCE_DIR}/tests/bench/step_model.c)
target_link_libraries(step_table PRIVATE m)

# What tests/bench/speed.sh measures with; built by name. op_bench: speed of the operators,
# beside oneDNN's where it is installed; tok_bench: speed of a tokenizer.
add_executable(tok_bench EXCLUDE_FROM_ALL ${PROJECT_SOURCE_DIR}/tests/bench/tok_bench.c)
target_link_libraries(tok_bench PRIVATE hone_tok)
add_executable(op_bench EXCLUDE_FROM_ALL ${PROJECT_SOURCE_DIR}/tests/bench/op_bench.c
    ${PROJECT_SOURCE_DIR}/tests/bench/dnnl_peer.c)
target_link_libraries(op_bench PRIVATE hone_kernels)
find_library(DNNL_LIBRARY dnnl)
find_package(OpenMP COMPONENTS C)
if(DNNL_LIBRARY AND OpenMP_C_FOUND)
    target_compile_definitions(op_bench PRIVATE HONE_HAVE_DNNL)
    target_link_libraries(op_bench PRIVATE ${DNNL_LIBRARY} OpenMP::OpenMP_C)
endif()
hone_fuzz(config hone_model)

# The daemon in a simulated world: some hundred schedules with every build, many under slow.
add_executable(sim_daemon ${PROJECT_SOURCE_DIR}/tests/sim/test_daemon.c ${PROJECT_SOURCE_DIR}/tests/sim/world.c ${PROJECT_SOURCE_DIR}/tests/sim/worker.c
    ${PROJECT_SOURCE_DIR}/tests/sim/client.c)
target_link_libraries(sim_daemon PRIVATE hone_daemon)
set_target_properties(sim_daemon PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
add_test(NAME sim_daemon COMMAND sim_daemon)
set_tests_properties(sim_daemon PROPERTIES LABELS quick TIMEOUT 300)
add_test(NAME sim_daemon_long COMMAND sim_daemon --seeds 10000 --from 1000)
set_tests_properties(sim_daemon_long PROPERTIES LABELS slow TIMEOUT 3600)

add_executable(sim_judge ${PROJECT_SOURCE_DIR}/tests/sim/test_judge.c
    ${PROJECT_SOURCE_DIR}/tests/sim/world.c ${PROJECT_SOURCE_DIR}/tests/sim/worker.c
    ${PROJECT_SOURCE_DIR}/tests/sim/client.c)
target_link_libraries(sim_judge PRIVATE hone_daemon cmocka)
set_target_properties(sim_judge PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
add_test(NAME sim_judge COMMAND sim_judge)
set_tests_properties(sim_judge PROPERTIES LABELS quick TIMEOUT 300)

# How fast the daemon is (docs/PERFORMANCE.md), and that it does not grow.
add_executable(daemon_bench
    ${PROJECT_SOURCE_DIR}/tests/bench/daemon_bench.c
    ${PROJECT_SOURCE_DIR}/tests/bench/daemon_rig.c
    ${PROJECT_SOURCE_DIR}/tests/bench/daemon_soak.c
    ${PROJECT_SOURCE_DIR}/tests/bench/daemon_stand_in.c
    ${PROJECT_SOURCE_DIR}/tests/bench/daemon_training.c)
target_link_libraries(daemon_bench PRIVATE hone_daemon hone_worker)
add_test(NAME daemon_soak COMMAND daemon_bench ${PROJECT_BINARY_DIR}/bin --soak 20)
set_tests_properties(daemon_soak PROPERTIES LABELS slow TIMEOUT 300)
