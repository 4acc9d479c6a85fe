/* job.resolved.yaml: every key with its value, defaults included, paths absolute. Reading
 * it again gives the same spec, whatever the defaults of that version are. */
#include "worker/spec/internal.h"
#include "worker/stage/stage.h"

void spec_write_resolved(const struct spec *s, struct str *out)
{
    struct job_keys k = {.name = s->name,
                         .model = s->model,
                         .notify = s->notify,
                         .seed = s->seed,
                         .seeds = s->seeds};
    enum { HEAD = 5 }; /* name, seed, seeds, model, notify; the rest are sections */
    struct opt head[HEAD + 1];

    for (int i = 0; i < HEAD; i++)
        head[i] = job_options[i];
    head[HEAD] = (struct opt)OPT_END;
    opt_write_yaml(head, &k, 0, out);
    str_add(out, "task:\n");
    opt_write_yaml(task_options, &s->task, 2, out);
    str_add(out, "data:\n");
    opt_write_yaml(data_options, &s->data, 2, out);
    str_add(out, "resources:\n");
    opt_write_yaml(resource_options, &s->resources, 2, out);
    str_add(out, "save:\n");
    opt_write_yaml(save_options, &s->save, 2, out);
    str_add(out, "stages:\n");
    for (size_t i = 0; i < s->n_stages; i++) {
        const struct stage_spec *st = &s->stage[i];

        str_addf(out, "  %s:\n", st->name);
        opt_write_yaml(st->stage->options, st->config, 4, out);
        opt_write_yaml(common_options, &st->common, 4, out);
    }
}
