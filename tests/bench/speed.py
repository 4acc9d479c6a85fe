#!/usr/bin/env python3
"""Hone against the PyTorch peer, turn and turn about in one run, same texts, real tokens.

    tests/bench/speed.sh [options]        (builds, then runs this)

Each row is measured --rounds times, Hone and peer in turn; the table gives the median of
"all timed steps together" with its range, the ratio of the sides' "best" (the fastest
repeat of each batch counts), and the ratio by CPU time, which a neighbour disturbs least.
"of bound": Hone's best against the matrix products alone, measured in the same run. Rows
whose hardware or software is absent say so. What a row asks is in ROWS; speed_run.py has
the runs themselves.
"""
import argparse, datetime, json, os, pathlib, platform, statistics, subprocess, sys
import tempfile

from speed_run import (Failed, Hone, Neighbour, Peer, WARM, run, write_bert_base, write_rows,
                       write_texts)

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROWS_READ = 2000  # training rows both sides take, the file's first
MINILM, BASE = (6, 384, 1536), (12, 768, 3072)


def say(text):
    print(text, file=sys.stderr, flush=True)


def cpu_flags():
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("flags"):
                return line.split()[2:]
    return []


def cpu_name():
    with open("/proc/cpuinfo") as f:
        info = dict(x.split(":", 1) for x in f.read().split("\n\n")[0].splitlines())
    get = lambda k: next((v.strip() for n, v in info.items() if n.strip() == k), "?")
    flags = cpu_flags()
    have = [n for n, f in (("AMX", "amx_bf16"), ("AVX512_BF16", "avx512_bf16"),
                           ("AVX-512", "avx512f"), ("AVX2", "avx2")) if f in flags]
    return (f"{os.cpu_count()} cores of {get('model name')} (family {get('cpu family')}, "
            f"model {get('model')}; {', '.join(have) or 'no vectors'})")


def no_bf16():
    """Why bf16 is not measured; None: the processor has instructions for it."""
    if {"amx_bf16", "avx512_bf16"} & set(cpu_flags()):
        return None
    return "not measured: this processor has no bf16 instructions (AMX or AVX512_BF16)"


def med(rows, key):
    return statistics.median(r[key] for r in rows)


def spread(values, digits=0):
    low, high = min(values), max(values)
    middle = f"{statistics.median(values):,.{digits}f}"
    return middle if len(values) < 2 else f"{middle} ({low:,.{digits}f}–{high:,.{digits}f})"


class Bench:
    def __init__(self, a, folder):
        data = a.shared / "data/sst5"
        self.a, self.folder = a, folder
        self.train = write_rows(data / "train.jsonl", folder / "train.jsonl", ROWS_READ)
        self.test = data / "test.jsonl"
        self.texts = write_texts(self.test, folder / "texts.txt")
        self.many = write_texts(data / "train.jsonl", folder / "many.txt")
        self.hone = Hone(a.hone_bin, folder, self.train)
        self.peer = Peer(a.python, a.shared, a.model, self.train, self.test)
        self.lines, self.others, self.peaks, self.raw = [], [], {}, {}
        self.bounds = {}

    def base(self):
        path = self.folder / "bert-base"
        return path if path.exists() else write_bert_base(self.a.model, path)

    def bound(self, size, tokens, kind="step_tokens_s"):
        """Measured for each row that asks; the best so far counts."""
        r = self.hone.bound(self.a.threads, *size, tokens)
        best = self.bounds.setdefault((size, tokens), r)
        best.update({k: max(v, r[k]) for k, v in best.items()})
        return best[kind]

    def row(self, name, what, hone, peer, bound=None, unit="tokens/s", goal=""):
        """Measure both sides in turn and add the row's line."""
        ours, theirs = [], []
        for k in range(self.a.rounds):
            say(f"  {what}: round {k + 1} of {self.a.rounds}")
            ours.append(hone())
            if peer:
                theirs.append(peer())
        self.raw[name] = {"hone": ours, "peer": theirs, "bound": bound}
        self.others += [r["others"] for r in ours + theirs]
        best = max(r["best"] for r in ours)
        mine = f"{spread([r['mean'] for r in ours])} {unit}"
        if not theirs:
            return self.add(what, mine, "", "", "", bound and best / bound, goal)
        ratio = best / max(r["best"] for r in theirs)
        turns = [o["mean"] / t["mean"] for o, t in zip(ours, theirs)]
        cpu = max(r["cpu"] for r in ours) / max(r["cpu"] for r in theirs)
        self.add(what, mine, f"{spread([r['mean'] for r in theirs])}",
                 f"{ratio:.2f}× (turns {spread(turns, 2)})", f"{cpu:.2f}×",
                 bound and best / bound, goal)

    def add(self, what, hone, peer="", ratio="", cpu="", bound=None, goal=""):
        of_bound = f"{100 * bound:.0f} %" if bound else ""
        self.lines.append(f"| {what} | {hone} | {peer} | {ratio} | {cpu} | {of_bound} "
                          f"| {goal} |")
        say("  " + self.lines[-1])

    def skip(self, what, why, goal=""):
        self.lines.append(f"| {what} | {why} | | | | | {goal} |")
        say(f"  {what}: {why}")

    def no_ranks(self):
        """Why two ranks do not train here; None: they do. Tried once."""
        if not hasattr(self, "why_no_ranks"):
            try:
                self.hone.train_run("try", self.a.model, "sft", 1, 1, workers=2)
                self.why_no_ranks = None
            except Failed as e:
                self.why_no_ranks = str(e)
        return self.why_no_ranks

    # ---- rows ----

    def train_row(self, name, what, stage, steps, goal, peer_more=(), pad="bucket",
                  precision="f32", size=MINILM, tokens=400, seconds=8):
        if precision == "bf16" and no_bf16():
            return self.skip(what, no_bf16(), goal)
        a, base = self.a, size is BASE
        model = self.base() if base else a.model
        more = list(peer_more) + (["--size", "bert-base"] if base else [])
        steps, seconds = (max(4, steps // 4), 3) if a.quick else (steps, seconds)
        case = f"{stage}-{precision}-{'base' if base else 'minilm'}"
        self.row(name, what,
                 lambda: self.remember(case, self.hone.train_run(
                     case, model, stage, steps, a.threads, precision)),
                 lambda: self.remember(f"peer {name}", self.peer.bench(
                     stage, *more, threads=a.threads, pad=pad, precision=precision,
                     seconds=seconds)),
                 self.bound(size, tokens) if precision == "f32" else None, goal=goal)

    def remember(self, case, r):
        self.peaks[case] = max(self.peaks.get(case, 0), r["peak"])
        return r

    def sft(self):
        self.train_row("sft", "SFT f32, against length buckets", "sft", 40, "1.3×")

    def sft_batch(self):
        self.train_row("sft-batch", "SFT f32, against random batches", "sft", 40, "2.2×",
                       pad="batch")

    def sft_full(self):
        self.train_row("sft-full", "SFT f32, against padding to 400", "sft", 40, "30×",
                       pad="full", seconds=4)

    def sft_bf16(self):
        self.train_row("sft-bf16", "SFT bf16, against bf16 buckets", "sft", 40, "1.6×",
                       precision="bf16")

    def rm(self):
        self.train_row("rm", "RM K = 5, f32", "rm", 10, "1.15×", tokens=3000)

    def rm_bf16(self):
        self.train_row("rm-bf16", "RM K = 5, bf16", "rm", 10, "1.4×", precision="bf16",
                       tokens=3000)

    def ppo(self):
        self.train_row("ppo", "PPO, stored rewards and reference, against `--cache`", "ppo",
                       20, "1.3×", peer_more=["--cache", "--limit", "96"])

    def ppo_again(self):
        self.train_row("ppo-again", "PPO, against recomputing", "ppo", 20, "2.2×")

    def bert_base(self):
        self.train_row("base", "SFT at BERT-base's size, f32", "sft", 8, "1.1×", size=BASE)

    def bert_base_bf16(self):
        self.train_row("base-bf16", "SFT at BERT-base's size, bf16", "sft", 8, "1.4×",
                       precision="bf16", size=BASE)

    def predict(self):
        a, model = self.a, self.hone.model(self.a.model)
        n = sum(1 for _ in open(self.texts, encoding="utf-8"))
        ids = json.loads(run([a.hone_bin / "tok_bench", a.model, self.texts, 1])["text"])
        length = ids["tokens"] / n + 2
        self.row("predict", "`hone predict` f32, tokenizing and printing included",
                 lambda: self.hone.predict("predict", model, self.texts),
                 lambda: self.peer.bench("predict", threads=a.threads, pad="batch",
                                         seconds=3 if a.quick else 8),
                 self.bound(MINILM, 400, "forward_tokens_s") / length, "texts/s", "1.2×")

    def predict_bf16(self):
        self.skip("`hone predict` bf16", no_bf16() or "not measured: predict is f32", "1.5×")

    def ranks(self):
        what, goal = "2 ranks × 1 thread against 1 rank × 1 thread, SFT f32", "1.8×"
        a, steps = self.a, 10 if self.a.quick else 40
        why = self.no_ranks()
        if why:
            return self.skip(what, f"not measured: {why}", goal)
        one, two = [], []
        for k in range(a.rounds):
            say(f"  {what}: round {k + 1} of {a.rounds}")
            one.append(self.hone.train_run("one", a.model, "sft", steps, 1))
            two.append(self.hone.train_run("two", a.model, "sft", steps, 1, workers=2))
        self.others += [r["others"] for r in one + two]
        self.raw["ranks"] = {"one": one, "two": two}
        turns = [t["mean"] / o["mean"] for o, t in zip(one, two)]
        best = max(r["best"] for r in two) / max(r["best"] for r in one)
        self.add(what, f"{spread([r['mean'] for r in two])} tokens/s",
                 f"{spread([r['mean'] for r in one])} (Hone, 1 rank)",
                 f"{best:.2f}× (turns {spread(turns, 2)})",
                 f"{max(r['cpu'] for r in two) / max(r['cpu'] for r in one):.2f}×", None,
                 goal)

    def neighbour(self):
        a, steps = self.a, 10 if self.a.quick else 40
        workers = 1 if self.no_ranks() else 2
        threads = 2 // workers
        what = (f"{workers} rank{'s' if workers > 1 else ''} × {threads} "
                f"thread{'s' if threads > 1 else ''} beside one busy neighbour")
        free, beside, peer = [], [], []
        for k in range(a.rounds):
            say(f"  {what}: round {k + 1} of {a.rounds}")
            free.append(self.hone.train_run("free", a.model, "sft", steps, threads,
                                            workers=workers))
            with Neighbour():
                beside.append(self.hone.train_run("beside", a.model, "sft", steps, threads,
                                                  workers=workers))
                peer.append(self.peer.bench("sft", threads=2,
                                            seconds=3 if a.quick else 8))
        self.raw["neighbour"] = {"free": free, "beside": beside, "peer": peer}
        share = [b["mean"] / f["mean"] for f, b in zip(free, beside)]
        self.add(what, f"{spread([r['mean'] for r in beside])} tokens/s",
                 f"{spread([r['mean'] for r in peer])} (PyTorch, 2 threads, beside it)",
                 f"{100 * statistics.median(share):.0f} % of undisturbed", "", None, "60 %")

    def wordpiece(self):
        ours, theirs = [], []
        for _ in range(self.a.rounds):
            ours.append(self.hone.tokenizer(self.a.model, self.many))
            theirs.append(self.peer.tokenizer(self.many))
        self.raw["wordpiece"] = {"hone": ours, "peer": theirs}
        best = lambda rows, k: max(r[k] for r in rows)
        self.add("WordPiece, one thread, against `tokenizers`",
                 f"{best(ours, 'mb_s'):.1f} MB/s", f"{best(theirs, 'mb_s'):.1f}",
                 f"{best(ours, 'mb_s') / best(theirs, 'mb_s'):.0f}×",
                 f"{best(ours, 'mb_cpu_s') / best(theirs, 'mb_cpu_s'):.0f}×", None, "3×")

    def start(self):
        n = 2 * self.a.rounds + 1
        model = self.hone.model(self.a.model)
        answer = [self.hone.first_answer(model) for _ in range(n)]
        step = [self.hone.first_step(self.a.model, self.a.threads) for _ in range(n)]
        self.raw["start"] = {"answer": answer, "step": step}
        self.add("`hone run`, first optimizer step", f"{spread(step)} ms", goal="300 ms")
        self.add("`hone predict`, first answer", f"{spread(answer)} ms", goal="100 ms")

    def memory(self):
        mine, peer = self.peaks.get("sft-f32-minilm"), self.peaks.get("peer sft")
        what, goal = "peak memory, SFT f32", "40 %"
        if not mine or not peer:
            return self.skip(what, "not measured: needs the row sft", goal)
        self.add(what, f"{mine:.0f} MiB", f"{peer:.0f}", f"{100 * mine / peer:.0f} %", "",
                 None, goal)


ROWS = [("sft", Bench.sft), ("sft-batch", Bench.sft_batch), ("sft-full", Bench.sft_full),
        ("sft-bf16", Bench.sft_bf16), ("rm", Bench.rm), ("rm-bf16", Bench.rm_bf16),
        ("ppo", Bench.ppo), ("ppo-again", Bench.ppo_again), ("base", Bench.bert_base),
        ("base-bf16", Bench.bert_base_bf16), ("predict", Bench.predict),
        ("predict-bf16", Bench.predict_bf16), ("ranks", Bench.ranks),
        ("neighbour", Bench.neighbour), ("wordpiece", Bench.wordpiece),
        ("start", Bench.start), ("memory", Bench.memory)]


def print_table(b, a):
    version = ("import torch, transformers as t; "
               "print(f'torch {torch.__version__}, transformers {t.__version__}')")
    peer = run([a.python, "-c", version])["text"].strip()
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"],
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                            text=True).stdout.strip()
    print(f"{datetime.date.today()}, {cpu_name()}, Linux {platform.release()}; {peer}; "
          f"Hone at {commit or 'no commit'}. all-MiniLM-L6-v2, SST-5 texts, batch 16, mean "
          f"pooling, dropout 0, {a.threads} threads unless said; {a.rounds} rounds in turn. "
          f"Other processes used {statistics.median(b.others or [0]):.2f} cores (median of "
          f"the runs; at most {max(b.others or [0]):.2f}).")
    print(f"`tests/bench/speed.sh {' '.join(a.words)}`".rstrip(" `") + "`\n")
    print("| what | Hone | PyTorch | ratio of best | by CPU time | of bound | reach |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(b.lines))
    for (size, tokens), r in b.bounds.items():
        print(f"\nBound: the matrix products alone of {size[0]} layers, {size[1]} × "
              f"{size[2]}, {tokens} tokens: {r['gflops']:.0f} GFLOP/s, "
              f"{r['step_tokens_s']:,.0f} tokens/s forward and backward, "
              f"{r['forward_tokens_s']:,.0f} forward.")


def arguments():
    p = argparse.ArgumentParser(prog="speed.sh", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    env = os.environ.get
    p.add_argument("--rows", help="only these, of: " + ", ".join(n for n, _ in ROWS))
    p.add_argument("--quick", action="store_true", help="one round, few steps")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    p.add_argument("--python", default=env("HONE_TORCH_PYTHON", sys.executable),
                   help="a Python with torch (default: HONE_TORCH_PYTHON, or this one)")
    p.add_argument("--model", type=pathlib.Path,
                   default=env("HONE_MODEL", ROOT / "deploy/cache/model"),
                   help="all-MiniLM-L6-v2 (default: HONE_MODEL, or the quick start's)")
    p.add_argument("--shared", type=pathlib.Path,
                   default=env("HONE_SHARED", ROOT.parent / "shared"),
                   help="folder of bench/torch_clahf.py and data/sst5 (HONE_SHARED)")
    p.add_argument("--hone-bin", type=pathlib.Path, default=ROOT / "build/release/bin")
    p.add_argument("--json", type=pathlib.Path, help="file for every single figure")
    a = p.parse_args()
    a.words = [w for w in sys.argv[1:] if w in ("--quick",)]
    if a.rows:
        a.words += ["--rows", a.rows]
    a.rounds = 1 if a.quick else a.rounds
    a.model, a.shared = pathlib.Path(a.model).resolve(), pathlib.Path(a.shared).resolve()
    for path in (a.model / "model.safetensors", a.shared / "bench/torch_clahf.py",
                 a.shared / "data/sst5/train.jsonl", a.hone_bin / "hone-worker"):
        if not path.exists():
            p.error(f"{path} is not there")
    if subprocess.run([a.python, "-c", "import torch, transformers, tokenizers"],
                      stderr=subprocess.DEVNULL).returncode:
        p.error(f"{a.python} has no torch, transformers, tokenizers: give --python")
    wanted = a.rows.split(",") if a.rows else [n for n, _ in ROWS]
    unknown = set(wanted) - {n for n, _ in ROWS}
    if unknown:
        p.error(f"no row {', '.join(sorted(unknown))}")
    return a, wanted


def main():
    a, wanted = arguments()
    with tempfile.TemporaryDirectory(prefix="hone-speed-") as name:
        b = Bench(a, pathlib.Path(name))
        for row, measure in ROWS:
            if row not in wanted:
                continue
            say(f"{datetime.datetime.now():%H:%M:%S} {row}")
            try:
                measure(b)
            except Failed as e:
                b.skip(row, f"failed: {e}")
            if a.json:
                a.json.write_text(json.dumps(b.raw, indent=1))
        print_table(b, a)


if __name__ == "__main__":
    main()
