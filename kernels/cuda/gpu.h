/* What a kernel file includes first. With nvcc it is CUDA; with g++ -x c++ -DHONE_CUDA_EMU
 * it is the emulator of tests/cuda_emu, which runs the same kernels on the CPU.
 *
 * A kernel has no PTX of its own, launches with LAUNCH, takes dynamic shared memory with
 * DYNAMIC_SHARED, and a template or inline function that has a __shared__ variable is
 * static. Launch errors: cuda_launched() of cuda.h. */
#ifndef KERNELS_CUDA_GPU_H
#define KERNELS_CUDA_GPU_H

#ifdef HONE_CUDA_EMU
#include <cuda_emu.h>
#define GPU_INLINE inline
#else
#include <cstdint>
#include <cstring>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define EMU_AT     int at_ = 0
#define GPU_INLINE __device__ __forceinline__
#define DYNAMIC_SHARED(type, name)                                                         \
    extern __shared__ __align__(1024) unsigned char dynamic_[];                            \
    type *name = (type *)dynamic_
#define LAUNCH(kernel, grid, threads, shared, stream, ...)                                 \
    kernel<<<grid, threads, shared, stream>>>(__VA_ARGS__)
#endif

#endif
