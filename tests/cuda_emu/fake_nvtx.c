/* A profiler that listens to NVTX (NVTX_INJECTION64_PATH): each range that is pushed
 * becomes a line of the file FAKE_NVTX, one that is popped without a push ends the process.
 */
#include <stdio.h>
#include <stdlib.h>

#include <nvtx3/nvToolsExt.h>

__attribute__((visibility("default"))) int
InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get);

static FILE *out;
static int depth;

static int NVTX_API push(const char *name)
{
    if (out)
        fprintf(out, "%s\n", name);
    return depth++;
}

static int NVTX_API pop(void)
{
    if (--depth < 0)
        abort();
    if (out)
        fflush(out);
    return depth;
}

int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get)
{
    const NvtxExportTableCallbacks *t =
        (const NvtxExportTableCallbacks *)get(NVTX_ETID_CALLBACKS);
    const char *path = getenv("FAKE_NVTX");
    NvtxFunctionTable table = NULL;
    unsigned size = 0;

    if (!t || !t->GetModuleFunctionTable(NVTX_CB_MODULE_CORE, &table, &size) || !path)
        return 0;
    out = fopen(path, "a");
    *table[NVTX_CBID_CORE_RangePushA] = (NvtxFunctionPointer)push;
    *table[NVTX_CBID_CORE_RangePop] = (NvtxFunctionPointer)pop;
    return 1;
}
