#!/usr/bin/env python3
"""Records what PyTorch computes with a checkpoint, so that `hone verify` can certify it.

    record.py --model DIR --out golden.safetensors [--head auto|classify|reward|causal|masked|none]
              [--text TEXT]... [--labels 0,2,...] [--no-gradients]
    hone verify --model DIR --golden golden.safetensors

Writes inputs (right padded) and, over real positions only: `hidden.N`, `hidden.norm` where
there is a final norm, `logits` or `rewards`, `loss` and `grad.<name>` for each parameter,
under the names of the checkpoint's own file. Needs torch, transformers and safetensors.
Always f32, eager attention, dropout off. Rows for rewards: the first half chosen, the
second half rejected.
"""
import argparse
import os

import torch
import torch.nn.functional as F
import transformers
from safetensors import safe_open
from safetensors.torch import save_file

TEXTS = [
    "A quiet film that stays with you.",
    "Nothing works, and the screen cracked on day two.",
    "It is fine.",
    "Loud, long and far too proud of itself, yet the last scene is lovely.",
]
CLASSES = {
    "classify": transformers.AutoModelForSequenceClassification,
    "reward": transformers.AutoModelForSequenceClassification,
    "causal": transformers.AutoModelForCausalLM,
    "masked": transformers.AutoModelForMaskedLM,
    "none": transformers.AutoModel,
}


def head_of(config):
    arch = (config.architectures or ["Model"])[0]
    if "ForSequenceClassification" in arch:
        return "reward" if config.num_labels == 1 else "classify"
    if "ForCausalLM" in arch or "LMHead" in arch:
        return "causal"
    return "masked" if "ForMaskedLM" in arch else "none"


def file_names(folder):
    """Names of the tensors in the checkpoint's files."""
    names = []
    for f in sorted(os.listdir(folder)):
        if f.endswith(".safetensors"):
            with safe_open(os.path.join(folder, f), "pt") as s:
                names += list(s.keys())
    return set(names)


def name_in_file(name, names, prefix):
    """A parameter's name as the file has it (prefix, and LayerNorm.gamma/beta)."""
    stems = [name, name[len(prefix) :] if name.startswith(prefix) else prefix + name]
    for n in stems:
        old = n.replace("LayerNorm.weight", "LayerNorm.gamma")
        old = old.replace("LayerNorm.bias", "LayerNorm.beta")
        for candidate in (n, old):
            if candidate in names:
                return candidate
    return None


def layers_of(model):
    """The list of layers and the final norm (or None) of the architectures Hone has."""
    body = getattr(model, model.base_model_prefix, model)
    norm = getattr(body, "norm", None) or getattr(body, "ln_f", None)
    for path in ("encoder.layer", "transformer.layer", "layers", "h"):
        at = body
        for part in path.split("."):
            at = getattr(at, part, None)
        if at is not None:
            return at, norm
    raise SystemExit(f"record.py: {type(model).__name__}: unknown layer list")


def make_labels(head, ids, mask, text, config):
    if head == "classify":
        if text:
            return torch.tensor([int(x) for x in text.split(",")])
        return torch.arange(len(ids)) % config.num_labels
    labels = torch.where(mask.bool(), ids, torch.tensor(-100))
    if head == "masked":
        keep = torch.zeros_like(mask)
        keep[:, 1::3] = 1
        labels = torch.where(keep.bool(), labels, torch.tensor(-100))
    return labels


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--head", default="auto", choices=["auto", *CLASSES])
    p.add_argument("--text", action="append")
    p.add_argument("--labels")
    p.add_argument("--no-gradients", action="store_true")
    a = p.parse_args()

    config = transformers.AutoConfig.from_pretrained(a.model)
    head = head_of(config) if a.head == "auto" else a.head
    tokenizer = transformers.AutoTokenizer.from_pretrained(a.model)
    model = CLASSES[head].from_pretrained(
        a.model, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    names = file_names(a.model)
    prefix = model.base_model_prefix + "."
    missing = [n for n, _ in model.named_parameters() if not name_in_file(n, names, prefix)]
    missing = [n for n in missing if "pooler" not in n]
    if missing:
        raise SystemExit(f"record.py: the checkpoint has no {missing[0]}: try --head none")
    texts = a.text or TEXTS
    rows = [tokenizer(t)["input_ids"] for t in texts]
    width = max(map(len, rows))
    pad = config.pad_token_id or 0
    ids = torch.tensor([r + [pad] * (width - len(r)) for r in rows])
    mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows])
    real = mask.bool()
    out = {"input_ids": ids, "attention_mask": mask}

    taps = {}
    layers, norm = layers_of(model)
    layers[0].register_forward_pre_hook(
        lambda m, x: taps.__setitem__("hidden.0", x[0]), with_kwargs=False
    )
    for i, layer in enumerate(layers):
        layer.register_forward_hook(
            lambda m, x, y, i=i: taps.__setitem__(
                f"hidden.{i + 1}", y[0] if isinstance(y, tuple) else y
            )
        )
    if norm is not None:
        norm.register_forward_hook(lambda m, x, y: taps.__setitem__("hidden.norm", y))

    r = model(input_ids=ids, attention_mask=mask)
    loss = None
    if head == "reward":
        score, half = r.logits[:, 0], len(ids) // 2
        out["rewards"] = score
        if len(ids) % 2 == 0:
            loss = -F.logsigmoid(score[:half] - score[half:]).mean()
    elif head in ("classify", "causal", "masked"):
        labels = out["labels"] = make_labels(head, ids, mask, a.labels, config)
        out["logits"] = r.logits if head == "classify" else r.logits[real]
        if head == "classify":
            loss = F.cross_entropy(r.logits, labels)
        elif head == "causal":
            loss = F.cross_entropy(r.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        else:
            loss = F.cross_entropy(r.logits.flatten(0, 1), labels.flatten())
    for name, h in taps.items():
        out[name] = h[real]
    if loss is not None:
        out["loss"] = loss
        if not a.no_gradients:
            loss.backward()
            for name, parameter in model.named_parameters():
                stored = name_in_file(name, names, prefix)
                if parameter.grad is not None and stored:
                    out["grad." + stored] = parameter.grad
    save_file({k: v.detach().contiguous().clone() for k, v in out.items()}, a.out)
    print(f"{a.out}: {head}, {len(texts)} texts, {int(mask.sum())} tokens, {len(out)} tensors")


if __name__ == "__main__":
    main()
