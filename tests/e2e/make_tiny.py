#!/usr/bin/env python3
"""A tiny random BERT checkpoint, data and a job file for tests of whole programs.

    make_tiny.py DIR [--rows N] [--width D] [--layers L]

Writes DIR/model/ (config.json, model.safetensors, vocab.txt), DIR/{train,validation,
test}.jsonl and DIR/job.yaml (SFT, reward model, PPO over three labels). Standard library
alone; the same arguments give the same bytes.
"""
import argparse
import json
import os
import random
import struct

WORDS = {
    0: "awful boring broken dull hated poor sad terrible waste worst".split(),
    1: "average fine middling normal okay ordinary plain regular so standard".split(),
    2: "best brilliant charming excellent fun great loved lovely superb wonderful".split(),
}
FILLER = "a and film it movie of plot the this was with".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [chr(c) for c in range(ord("a"), ord("z") + 1)]
PIECES = ["##" + c for c in LETTERS] + list(":{}|.,'") + LETTERS


def vocabulary():
    words = sorted({w for ws in WORDS.values() for w in ws} | set(FILLER))
    extra = ["negative", "neutral", "positive", "prediction", "sentence", "is"]
    return SPECIAL + words + [w for w in extra if w not in words] + PIECES


def tensors(vocab, width, layers, positions):
    ffn = 4 * width
    yield "embeddings.word_embeddings.weight", (vocab, width)
    yield "embeddings.position_embeddings.weight", (positions, width)
    yield "embeddings.token_type_embeddings.weight", (2, width)
    yield "embeddings.LayerNorm.weight", (width,)
    yield "embeddings.LayerNorm.bias", (width,)
    for i in range(layers):
        p = f"encoder.layer.{i}."
        for name in ("query", "key", "value"):
            yield p + f"attention.self.{name}.weight", (width, width)
            yield p + f"attention.self.{name}.bias", (width,)
        yield p + "attention.output.dense.weight", (width, width)
        yield p + "attention.output.dense.bias", (width,)
        yield p + "attention.output.LayerNorm.weight", (width,)
        yield p + "attention.output.LayerNorm.bias", (width,)
        yield p + "intermediate.dense.weight", (ffn, width)
        yield p + "intermediate.dense.bias", (ffn,)
        yield p + "output.dense.weight", (width, ffn)
        yield p + "output.dense.bias", (width,)
        yield p + "output.LayerNorm.weight", (width,)
        yield p + "output.LayerNorm.bias", (width,)
    yield "pooler.dense.weight", (width, width)
    yield "pooler.dense.bias", (width,)


def random_values(shapes, rng):
    for name, shape in shapes:
        count = 1
        for n in shape:
            count *= n
        if name.endswith("LayerNorm.weight"):
            values = [1.0] * count
        elif name.endswith("bias"):
            values = [0.0] * count
        else:
            values = [rng.gauss(0, 0.1) for _ in range(count)]
        yield name, shape, values


def write_safetensors(path, named):
    """named: (name, shape, values), stored as f32 in this order."""
    header, body = {}, bytearray()
    for name, shape, values in named:
        start = len(body)
        body += struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, len(body)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + body)


def write_model(folder, vocab, width, layers, positions, rng):
    named = random_values(tensors(len(vocab), width, layers, positions), rng)
    write_safetensors(os.path.join(folder, "model.safetensors"), named)
    config = {
        "architectures": ["BertModel"], "model_type": "bert", "vocab_size": len(vocab),
        "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2,
        "intermediate_size": 4 * width, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1, "max_position_embeddings": positions,
        "type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 0,
        "initializer_range": 0.02, "position_embedding_type": "absolute",
    }
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f, indent=2)
    with open(os.path.join(folder, "vocab.txt"), "w") as f:
        f.write("\n".join(vocab) + "\n")
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as f:
        json.dump({"do_lower_case": True, "tokenizer_class": "BertTokenizer"}, f)


def write_rows(path, count, rng):
    with open(path, "w") as f:
        for _ in range(count):
            label = rng.randrange(3)
            words = [rng.choice(FILLER) for _ in range(rng.randrange(3, 9))]
            for _ in range(2):
                words.insert(rng.randrange(len(words) + 1), rng.choice(WORDS[label]))
            f.write(json.dumps({"text": " ".join(words), "label": label}) + "\n")


JOB = """name: tiny
seed: 1
model: model
task:
  labels: [negative, neutral, positive]
  order: ordinal
  prefix: sentence
  candidate: "Prediction: the sentence is {label}"
data:
  train: train.jsonl
  validation: validation.jsonl
  test: test.jsonl
  max_tokens: 48
stages:
  sft: {epochs: 2, batch: 8, lr: 1e-3, pooling: mean, checkpoint_every: 5}
  rm:  {epochs: 1, batch: 8, lr: 1e-3, init: sft, needs: [sft], checkpoint_every: 5}
  ppo: {epochs: 1, batch: 8, lr: 1e-4, needs: [sft, rm], checkpoint_every: 5}
"""


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("dir")
    p.add_argument("--rows", type=int, default=96)
    p.add_argument("--width", type=int, default=32)
    p.add_argument("--layers", type=int, default=2)
    a = p.parse_args()
    rng = random.Random(1)
    model = os.path.join(a.dir, "model")
    os.makedirs(model, exist_ok=True)
    write_model(model, vocabulary(), a.width, a.layers, 64, rng)
    for name, count in (("train", a.rows), ("validation", a.rows // 4), ("test", a.rows // 4)):
        write_rows(os.path.join(a.dir, name + ".jsonl"), count, rng)
    with open(os.path.join(a.dir, "job.yaml"), "w") as f:
        f.write(JOB)


if __name__ == "__main__":
    main()
