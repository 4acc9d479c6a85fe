/* Attach: a run that was started elsewhere reports here. */
#include "daemon/attach.h"

RPC_HANDLER(attach, AttachRequest, AttachReply)
{
    (void)service;
    (void)reply; /* attach.c answers */
    attach_begin(ctx, in);
}
