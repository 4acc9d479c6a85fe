#!/usr/bin/env python3
"""Hone against the PyTorch peer, turn and turn about in one run on the same texts.

    tests/bench/speed.py --model DIR [--shared ../shared] [--peer-python PYTHON]
                         [--rounds 3] [--threads 2] [--json FILE]

Rows: SFT f32 (peer: length buckets), peak memory of both, the first answer of
`hone predict` and the first optimizer step of `hone run`. Prints a Markdown table of
medians and ratios. PYTHON needs torch, transformers, tokenizers and safetensors.
Other work on the machine disturbs both sides: the column "others' cores" says how much.
"""
import argparse, json, os, pathlib, statistics, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def busy():
    """Busy core-seconds of the machine since boot, and those of our finished children."""
    with open("/proc/stat") as f:
        v = [int(x) for x in f.readline().split()[1:9]]
    return (sum(v) - v[3] - v[4]) / os.sysconf("SC_CLK_TCK"), sum(os.times()[2:4])


def run(cmd, env=None, **kw):
    """Finished process with .seconds, .others (cores used by other processes), .peak."""
    (b, own), start = busy(), time.time()
    p = subprocess.Popen(cmd, env=dict(os.environ, **(env or {})), stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, **kw)
    out, err = p.communicate()
    took = time.time() - start
    b2, own2 = busy()
    if p.returncode:
        sys.exit(f"{' '.join(map(str, cmd))}: exit {p.returncode}\n{err.decode()[-2000:]}")
    p.text, p.errors, p.seconds = out.decode(), err.decode(), took
    p.others = max(0.0, (b2 - b - (own2 - own)) / took)
    return p


JOB = """name: bench
seed: 1
model: {model}
task: {{labels: [very negative, negative, neutral, positive, very positive]}}
data: {{train: {train}, max_tokens: 400}}
resources: {{threads: {threads}, precision: f32}}
stages:
  sft: {{steps: {steps}, batch: 16, lr: 2e-5, pooling: mean, dropout: 0, select: last, log_every: 1}}
"""


def hone_sft(a, folder, steps):
    job = folder / "job.yaml"
    job.write_text(JOB.format(model=a.model, train=a.shared / "data/sst5/train.jsonl",
                              threads=a.threads, steps=steps))
    out = folder / f"run-{time.time_ns()}"
    p = run([a.hone_bin / "hone-worker", job, "--out", out])
    stage = json.loads((out / "summary.json").read_text())["stages"]["sft"]
    return {"tokens_s": stage["tokens_per_second"], "peak": stage["peak_bytes"] / 2**20,
            "others": p.others}


def peer_sft(a, steps):
    # Large blocks stay in the heap: without this every step pays page faults.
    env = {"OMP_NUM_THREADS": str(a.threads), "TRANSFORMERS_VERBOSITY": "error",
           "MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "4294967296",
           "MALLOC_TOP_PAD_": "268435456"}
    data = a.shared / "data/sst5"
    p = run([a.peer_python, a.shared / "bench/torch_clahf.py", "bench-one", "--model", a.model,
             "--train", data / "train.jsonl", "--test", data / "test.jsonl", "--stage", "sft",
             "--pad", "bucket", "--threads", str(a.threads), "--dropout", "0", "--steps",
             str(steps)], env)
    r = json.loads(p.text.strip().splitlines()[-1])
    return {"tokens_s": r["tokens_s_mean"], "best": r["tokens_s"], "peak": r["rss_mib"],
            "others": p.others}


def first_answer(a, folder, model):
    """Milliseconds from process start to the first line of `hone predict`."""
    start = time.perf_counter()
    p = subprocess.Popen([a.hone_bin / "hone", "predict", "--model", model],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    p.stdin.write(b"a gripping, funny film\n")
    p.stdin.flush()
    line = p.stdout.readline()
    took = 1e3 * (time.perf_counter() - start)
    p.stdin.close()
    p.wait()
    json.loads(line)
    return took


def first_step(a, folder):
    """Milliseconds from `hone run` to the first line of metrics.jsonl: step 1 is done."""
    out = folder / f"first-{time.time_ns()}"
    metrics = out / "sft/metrics.jsonl"
    start = time.perf_counter()
    p = subprocess.Popen([a.hone_bin / "hone", "run", folder / "job.yaml", "--set",
                          "stages.sft.steps=1", "--out", out], stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL)
    while p.poll() is None and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.002)
    took = 1e3 * (time.perf_counter() - start)
    if p.wait():
        sys.exit(f"hone run: exit {p.returncode}")
    return took


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=pathlib.Path, required=True)
    p.add_argument("--shared", type=pathlib.Path, default=ROOT.parent / "shared")
    p.add_argument("--hone-bin", type=pathlib.Path, default=ROOT / "build/release/bin")
    p.add_argument("--peer-python", default=sys.executable)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--steps", type=int, default=40)
    p.add_argument("--json", type=pathlib.Path)
    a = p.parse_args()
    a.model, a.shared = a.model.resolve(), a.shared.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        ours, theirs = [], []
        for _ in range(a.rounds):
            ours.append(hone_sft(a, folder, a.steps))
            theirs.append(peer_sft(a, 12))
        final = sorted(folder.glob("run-*"))[0] / "sft/final"
        answer = [first_answer(a, folder, final) for _ in range(2 * a.rounds + 1)]
        step = [first_step(a, folder) for _ in range(a.rounds)]
    med = lambda rows, key: statistics.median(r[key] for r in rows)
    ratios = sorted(o["tokens_s"] / t["tokens_s"] for o, t in zip(ours, theirs))
    print("| what | Hone | PyTorch peer | ratio |\n|---|---|---|---|")
    print(f"| SFT f32, {a.threads} threads, real tokens/s (length buckets) "
          f"| {med(ours, 'tokens_s'):.0f} | {med(theirs, 'tokens_s'):.0f} "
          f"(best {med(theirs, 'best'):.0f}) | {statistics.median(ratios):.2f}× "
          f"({ratios[0]:.2f}–{ratios[-1]:.2f}) |")
    print(f"| peak memory, MiB | {med(ours, 'peak'):.0f} | {med(theirs, 'peak'):.0f} "
          f"| {med(ours, 'peak') / med(theirs, 'peak'):.2f} |")
    print(f"| `hone predict`, first answer, ms | {statistics.median(answer):.0f} | | |")
    print(f"| `hone run`, first optimizer step, ms | {statistics.median(step):.0f} | | |")
    print(f"\nothers' cores: {max(r['others'] for r in ours + theirs):.2f} at most; "
          f"{a.rounds} rounds")
    if a.json:
        a.json.write_text(json.dumps({"ours": ours, "peer": theirs, "first_answer_ms": answer,
                                      "first_step_ms": step}, indent=1))


if __name__ == "__main__":
    main()
