/* Submit: judge a job file and queue it. */
#include "daemon/admit.h"
#include "daemon/rpc.h"

RPC_HANDLER(submit, SubmitRequest, SubmitReply)
{
    (void)service;
    (void)reply; /* when the check has ended, admit.c */
    admit_begin(ctx, in);
}
