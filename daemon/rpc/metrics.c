/* Metrics: the lines of metrics.jsonl, stage by stage; of a job elsewhere what it told. */
#include "daemon/attach.h"
#include "daemon/daemon.h"
#include "daemon/rpc.h"
#include "daemon/tail.h"

RPC_HANDLER(metrics, MetricsRequest, MetricChunk)
{
    struct rpc_call *call = ctx;
    struct job *j = rpc_find_job(call, in->id, ACCESS_VIEW);

    (void)service;
    (void)reply; /* the stream ends in tail.c */
    if (j && j->attached)
        attach_metrics(call, j, in->stage);
    else if (j)
        tail_metrics(call, j, in->stage);
}
