# Every proto/<name>.proto becomes gen/<name>.pb-c.{c,h}, compiled into hone_proto beside
# proto/*.c.
file(GLOB protos CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/proto/*.proto)
file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/gen)
set(proto_sources "")
foreach(proto IN LISTS protos)
    get_filename_component(name ${proto} NAME_WE)
    add_custom_command(
        OUTPUT ${PROJECT_BINARY_DIR}/gen/${name}.pb-c.c ${PROJECT_BINARY_DIR}/gen/${name}.pb-c.h
        COMMAND ${PROTOC_C} --proto_path=${PROJECT_SOURCE_DIR}/proto
                --c_out=${PROJECT_BINARY_DIR}/gen ${proto}
        DEPENDS ${proto})
    list(APPEND proto_sources ${PROJECT_BINARY_DIR}/gen/${name}.pb-c.c
        ${PROJECT_BINARY_DIR}/gen/${name}.pb-c.h)
endforeach()
hone_room(proto proto DEPS hone_base PkgConfig::PROTOBUFC)
target_sources(hone_proto PRIVATE ${proto_sources})
add_custom_target(hone_proto_headers DEPENDS ${proto_sources})
add_dependencies(hone_proto hone_proto_headers)
# Generated code is not ours to warn about.
set_source_files_properties(${proto_sources} PROPERTIES COMPILE_OPTIONS "-w")
