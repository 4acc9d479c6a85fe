#!/usr/bin/env python3
"""A tiny random Llama that answers prompts, data and a job file for tests of whole programs.

    make_answers.py DIR [--rows N] [--width D] [--layers L] [--untied]

Writes DIR/model/ (config.json, model.safetensors, tokenizer.json: byte-level BPE without
merges), DIR/{train,validation,test}.jsonl and DIR/job.yaml. Standard library alone; the
same arguments give the same bytes.
"""
import argparse
import json
import os
import random

from make_tiny import write_safetensors

END = "<|end|>"
COLOURS = {"apple": "red", "banana": "yellow", "grass": "green", "sea": "blue"}
OPENINGS = ["What colour has", "Tell me the colour of", "Which colour is"]


def byte_letters():
    """The letter that stands for each byte in byte-level vocabularies (GPT-2)."""
    plain = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    letters, extra = {}, 0
    for b in range(256):
        letters[b] = chr(b) if b in plain else chr(256 + extra)
        extra += b not in plain
    return [letters[b] for b in range(256)]


def write_tokenizer(folder):
    vocab = {c: i for i, c in enumerate(byte_letters())}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    end = {"id": len(vocab), "content": END, "single_word": False, "lstrip": False,
           "rstrip": False, "normalized": False, "special": True}
    vocab[END] = len(vocab)
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
             "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False,
             "vocab": vocab, "merges": []}
    tokenizer = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [end],
                 "normalizer": None, "pre_tokenizer": level, "post_processor": None,
                 "decoder": level, "model": model}
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump(tokenizer, f, ensure_ascii=False)
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as f:
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END}, f)
    return len(vocab)


def tensors(vocab, width, layers, untied):
    ff, kv = 2 * width, width // 2
    yield "model.embed_tokens.weight", (vocab, width)
    for i in range(layers):
        p = f"model.layers.{i}."
        yield p + "input_layernorm.weight", (width,)
        yield p + "self_attn.q_proj.weight", (width, width)
        yield p + "self_attn.k_proj.weight", (kv, width)
        yield p + "self_attn.v_proj.weight", (kv, width)
        yield p + "self_attn.o_proj.weight", (width, width)
        yield p + "post_attention_layernorm.weight", (width,)
        yield p + "mlp.gate_proj.weight", (ff, width)
        yield p + "mlp.up_proj.weight", (ff, width)
        yield p + "mlp.down_proj.weight", (width, ff)
    yield "model.norm.weight", (width,)
    if untied:
        yield "lm_head.weight", (vocab, width)


def random_values(shapes, rng):
    for name, shape in shapes:
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        norm = "norm" in name
        yield name, shape, [1.0 if norm else rng.gauss(0, 0.1) for _ in range(count)]


def write_model(folder, vocab, a, rng):
    named = random_values(tensors(vocab, a.width, a.layers, a.untied), rng)
    write_safetensors(os.path.join(folder, "model.safetensors"), named)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab,
        "hidden_size": a.width, "num_hidden_layers": a.layers, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 2 * a.width, "hidden_act": "silu",
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": not a.untied, "eos_token_id": vocab - 1,
    }
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f, indent=2)


def write_rows(path, count, rng):
    with open(path, "w") as f:
        for _ in range(count):
            thing = rng.choice(sorted(COLOURS))
            f.write(json.dumps({"prompt": f"{rng.choice(OPENINGS)} {thing}?",
                                "response": COLOURS[thing]}) + "\n")


JOB = """name: answers
seed: 1
model: model
task: {kind: generate, template: "Q: {prompt} A: "}
data:
  train: train.jsonl
  validation: validation.jsonl
  test: test.jsonl
  max_tokens: 64
resources: {precision: f32}
stages:
  sft: {epochs: 2, batch: 8, lr: 1e-2, checkpoint_every: 4}
"""


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("dir")
    p.add_argument("--rows", type=int, default=96)
    p.add_argument("--width", type=int, default=32)
    p.add_argument("--layers", type=int, default=2)
    p.add_argument("--untied", action="store_true")
    a = p.parse_args()
    rng = random.Random(1)
    model = os.path.join(a.dir, "model")
    os.makedirs(model, exist_ok=True)
    write_model(model, write_tokenizer(model), a, rng)
    for name, count in (("train", a.rows), ("validation", a.rows // 4), ("test", a.rows // 4)):
        write_rows(os.path.join(a.dir, name + ".jsonl"), count, rng)
    with open(os.path.join(a.dir, "job.yaml"), "w") as f:
        f.write(JOB)


if __name__ == "__main__":
    main()
