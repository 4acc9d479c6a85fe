"""What tests/bench/speed.py measures with: runs of Hone, of the PyTorch peer, and of both
beside a busy neighbour; each returns a dictionary of figures.

Speeds are real tokens (no padding) a second. Both sides train on the same texts, and each
side has two figures: "mean", all timed steps together, and "best", where the fastest repeat
of each batch counts, since a neighbour only ever slows. The peer repeats its batches within
a process; Hone's runs repeat the same batches from process to process.
"""
import json, os, pathlib, random, shutil, struct, subprocess, sys, time

WARM = 3  # steps that are not timed: first touch of memory
LABELS = ["very negative", "negative", "neutral", "positive", "very positive"]


class Failed(Exception):
    pass


def machine_busy():
    """Busy core-seconds of the machine since boot, and those of our finished children."""
    with open("/proc/stat") as f:
        v = [int(x) for x in f.readline().split()[1:9]]
    return (sum(v) - v[3] - v[4]) / os.sysconf("SC_CLK_TCK"), sum(os.times()[2:4])


def run(cmd, env=None, stdin=None):
    """A finished process: text, seconds, cpu (its CPU seconds), others (cores that other
    processes used meanwhile)."""
    (busy, own), start = machine_busy(), time.perf_counter()
    p = subprocess.run([str(x) for x in cmd], env=dict(os.environ, **(env or {})),
                       stdin=stdin or subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE)
    took = time.perf_counter() - start
    busy2, own2 = machine_busy()
    if p.returncode:
        said = p.stderr.decode(errors="replace").strip().splitlines()[-3:]
        raise Failed(f"{os.path.basename(str(cmd[0]))}: exit {p.returncode}: "
                     f"{' / '.join(said)[:300]}")
    return {"text": p.stdout.decode(), "seconds": took, "cpu": own2 - own,
            "others": max(0.0, (busy2 - busy - (own2 - own)) / took)}


def worker_ranks(out):
    """CPU seconds of each hone-worker process that trains into the folder `out`."""
    found, tick = {}, os.sysconf("SC_CLK_TCK")
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if not words[0].endswith(b"hone-worker") or os.fsencode(out) not in words:
                continue
            stat = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            found[pid] = (int(stat[11]) + int(stat[12])) / tick
        except OSError:
            continue
    return found


def line_count(path):
    try:
        return path.read_bytes().count(b"\n")
    except OSError:
        return 0


class Neighbour:
    """One process that does nothing but use a core."""

    def __enter__(self):
        self.p = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        return self

    def __exit__(self, *_):
        self.p.kill()
        self.p.wait()


# ---- models and data --------------------------------------------------------------------

def write_rows(source, to, n):
    """The first n rows of a JSONL file, as the peer takes them."""
    with open(source, encoding="utf-8") as f, open(to, "w", encoding="utf-8") as out:
        for _, line in zip(range(n), f):
            out.write(line)
    return to


def write_texts(source, to):
    """The texts of a JSONL file, one a line."""
    with open(source, encoding="utf-8") as f, open(to, "w", encoding="utf-8") as out:
        for line in f:
            out.write(" ".join(json.loads(line)["text"].split()) + "\n")
    return to


def write_bert_base(model, folder, layers=12, width=768, heads=12, ff=3072):
    """A BERT of that size with random weights beside `model`'s tokenizer: speed alone."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt",
                 "special_tokens_map.json"):
        if (model / name).exists():
            shutil.copy(model / name, folder / name)
    config = json.loads((model / "config.json").read_text())
    config.update(hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
                  intermediate_size=ff)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    shape = {"embeddings.word_embeddings.weight": (config["vocab_size"], width),
             "embeddings.position_embeddings.weight":
                 (config["max_position_embeddings"], width),
             "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], width)}

    def norm(name):
        shape[name + ".weight"] = shape[name + ".bias"] = (width,)

    def linear(name, rows, cols):
        shape[name + ".weight"], shape[name + ".bias"] = (rows, cols), (rows,)

    norm("embeddings.LayerNorm")
    for i in range(layers):
        at = f"encoder.layer.{i}."
        for part in ("query", "key", "value"):
            linear(at + "attention.self." + part, width, width)
        linear(at + "attention.output.dense", width, width)
        norm(at + "attention.output.LayerNorm")
        linear(at + "intermediate.dense", ff, width)
        linear(at + "output.dense", width, ff)
        norm(at + "output.LayerNorm")
    linear("pooler.dense", width, width)
    rng = random.Random(1)
    noise = struct.pack("<65537f", *(rng.gauss(0, 0.02) for _ in range(65537)))
    header, at = {}, 0
    for name, s in shape.items():
        size = 4 * s[0] * (s[1] if len(s) > 1 else 1)
        header[name] = {"dtype": "F32", "shape": s, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, s in shape.items():
            size = 4 * s[0] * (s[1] if len(s) > 1 else 1)
            if name.endswith("LayerNorm.weight"):
                f.write(struct.pack("<f", 1) * (size // 4))
            elif name.endswith(".bias"):
                f.write(bytes(size))
            else:
                f.write((noise * (size // len(noise) + 1))[:size])
    return folder


# ---- Hone -------------------------------------------------------------------------------

JOB = """name: bench
seed: 1
model: {model}
task:
  labels: [{labels}]
  prefix: sentence
  candidate: "Prediction: the sentence is {{label}}"
data: {{train: {train}, max_tokens: 400}}
resources: {{workers: {workers}, threads: {threads}, precision: {precision}}}
stages:
"""
STAGE = ("  {name}: {{steps: {steps}, batch: 16, lr: 2e-5, dropout: 0, select: last, "
         "log_every: 1, pooling: mean{more}}}\n")


class Hone:
    """Runs of the programs in `bin`; files go to `folder`."""

    def __init__(self, bin, folder, train):
        self.bin, self.folder, self.train = bin, folder, train
        self.steps = {}  # per case: seconds of each step, the least of all runs
        self.n = 0

    def job(self, model, stage, steps, threads, precision="f32", workers=1):
        """A job file whose stage `stage` has so many steps; what it needs has one."""
        self.n += 1
        path = self.folder / f"job-{self.n}.yaml"
        text = JOB.format(model=model, labels=", ".join(LABELS), train=self.train,
                          workers=workers, threads=threads, precision=precision)
        if stage == "ppo":
            text += STAGE.format(name="sft", steps=1, more="")
            text += STAGE.format(name="rm", steps=1, more=", needs: [sft]")
            text += STAGE.format(name="ppo", steps=steps, more=", needs: [sft, rm]")
        else:
            text += STAGE.format(name=stage, steps=steps, more="")
        path.write_text(text)
        return path

    def train_run(self, case, model, stage, steps, threads, precision="f32", workers=1):
        """One run of WARM + steps steps; figures of its stage. CPU time is the workers'
        between the lines of the metrics for the last step of WARM and for the last."""
        job = self.job(model, stage, WARM + steps, threads, precision, workers)
        out = self.folder / f"run-{self.n}"
        p = self.watch(job, out, out / stage / "metrics.jsonl", WARM + steps, workers)
        lines = [json.loads(x) for x in
                 (out / stage / "metrics.jsonl").read_text().splitlines()]
        lines = [x for x in lines if x["split"] == "train"]
        tokens = [lines[0]["tokens"]] + [b["tokens"] - a["tokens"]
                                         for a, b in zip(lines, lines[1:])]
        took = [t / x["tokens_per_second"] for t, x in zip(tokens, lines)]
        peak = json.loads((out / "summary.json").read_text())["stages"][stage]["peak_bytes"]
        shutil.rmtree(out)
        least = self.steps.setdefault(case, took)
        self.steps[case] = [min(a, b) for a, b in zip(least, took)]
        timed = sum(tokens[WARM:])
        return {"mean": timed / sum(took[WARM:]),
                "best": timed / sum(self.steps[case][WARM:]),
                "cpu": timed / max(1e-9, p["cpu"]),
                "peak": peak / 2**20, "others": p["others"]}

    def watch(self, job, out, metrics, steps, workers):
        """A whole run of `hone-worker`, under mpirun for several ranks, of which as many
        must train as were asked for."""
        cmd, env = [self.bin / "hone-worker", job, "--out", out], None
        if workers > 1:
            if not shutil.which("mpirun"):
                raise Failed("mpirun is not installed")
            cmd = ["mpirun", "-n", str(workers), "--bind-to", "none", "--quiet"] + cmd
            env = dict(os.environ, OMPI_MCA_rmaps_base_oversubscribe="1",
                       OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        (busy, own), start = machine_busy(), time.perf_counter()
        with open(self.folder / "said", "w+") as said:
            p = subprocess.Popen(cmd, stdout=subprocess.DEVNULL, stderr=said, env=env)
            first = last = None
            most = 0
            while p.poll() is None:
                time.sleep(0.01)
                done = line_count(metrics)
                if (first is None and done >= WARM) or (last is None and done >= steps):
                    ranks = worker_ranks(out)
                    most = max(most, len(ranks))
                    first = sum(ranks.values()) if first is None else first
                    last = sum(ranks.values()) if done >= steps else None
            took = time.perf_counter() - start
            said.seek(0)
            text = " / ".join(said.read().strip().splitlines()[-3:])[:300]
        if p.returncode:
            raise Failed(f"hone-worker: exit {p.returncode}: {text}")
        if most < workers:
            raise Failed(f"{workers} workers were asked for, {most} trained")
        busy2, own2 = machine_busy()
        return {"cpu": (last or 0) - (first or 0),
                "others": max(0.0, (busy2 - busy - (own2 - own)) / took)}

    def model(self, base):
        """A trained classifier, made once."""
        out = self.folder / "classifier"
        if not out.exists():
            run([self.bin / "hone-worker", self.job(base, "sft", 1, 2), "--out", out])
        return out / "sft/final"

    def predict(self, case, model, texts):
        """Texts a second: a file of texts, less the time of its first line alone."""
        one = self.folder / "one.txt"
        with open(texts, encoding="utf-8") as f:
            one.write_text(f.readline(), encoding="utf-8")
            n = sum(1 for _ in f)
        cmd = [self.bin / "hone", "predict", "--model", model, "--input"]
        short, p = run(cmd + [one]), run(cmd + [texts])
        took = p["seconds"] - short["seconds"]
        self.steps[case] = min(took, self.steps.get(case, took))
        return {"mean": n / took, "best": n / self.steps[case],
                "cpu": n / max(1e-9, p["cpu"] - short["cpu"]), "others": p["others"]}

    def first_answer(self, model):
        """Milliseconds from process start to the first line of `hone predict`."""
        start = time.perf_counter()
        p = subprocess.Popen([self.bin / "hone", "predict", "--model", model],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        p.stdin.write(b"a gripping, funny film\n")
        p.stdin.flush()
        line = p.stdout.readline()
        took = 1e3 * (time.perf_counter() - start)
        p.stdin.close()
        p.wait()
        json.loads(line)
        return took

    def first_step(self, base, threads):
        """Milliseconds from `hone run` to the first line of metrics.jsonl: step 1 is done."""
        job, out = self.job(base, "sft", 1, threads), self.folder / f"first-{self.n}"
        metrics = out / "sft/metrics.jsonl"
        start = time.perf_counter()
        p = subprocess.Popen([self.bin / "hone", "run", job, "--out", out],
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while p.poll() is None and not (metrics.exists() and metrics.stat().st_size):
            time.sleep(0.001)
        took = 1e3 * (time.perf_counter() - start)
        said = p.communicate()[1]
        if p.returncode:
            raise Failed(f"hone run: exit {p.returncode}: {said.decode()[-300:]}")
        shutil.rmtree(out)
        return took

    def bound(self, threads, layers, width, feed, tokens):
        p = run([self.bin / "op_bench", "--bound", threads, layers, width, feed, tokens])
        return json.loads(p["text"])

    def tokenizer(self, model, texts):
        return json.loads(run([self.bin / "tok_bench", model, texts])["text"])


# ---- the peer ---------------------------------------------------------------------------

class Peer:
    def __init__(self, python, shared, model, train, test):
        self.python, self.shared, self.model = python, shared, model
        self.train, self.test = train, test

    def bench(self, stage, *more, threads=2, pad="bucket", precision="f32", steps=12,
              seconds=8):
        """One `torch_clahf.py bench-one`."""
        # Large blocks stay in the heap: without this every step pays page faults.
        env = {"OMP_NUM_THREADS": str(threads), "TRANSFORMERS_VERBOSITY": "error",
               "MALLOC_MMAP_THRESHOLD_": "1073741824",
               "MALLOC_TRIM_THRESHOLD_": "4294967296", "MALLOC_TOP_PAD_": "268435456"}
        p = run([self.python, self.shared / "bench/torch_clahf.py", "bench-one", "--model",
                 self.model, "--train", self.train, "--test", self.test, "--stage", stage,
                 "--pad", pad, "--precision", precision, "--threads", threads, "--dropout",
                 "0", "--steps", steps, "--seconds", seconds, *more], env)
        r = json.loads(p["text"].strip().splitlines()[-1])
        if stage == "predict":
            return {"mean": r["examples_s"], "best": r["examples_s"],
                    "cpu": r["examples_s"] * r["tokens_cpu_s"] / r["tokens_s"],
                    "peak": r["rss_mib"], "others": p["others"]}
        return {"mean": r["tokens_s_mean"], "best": r["tokens_s"], "cpu": r["tokens_cpu_s"],
                "peak": r["rss_mib"], "others": p["others"]}

    def tokenizer(self, texts):
        code = ("import sys, time\n"
                "from tokenizers import Tokenizer\n"
                "t = Tokenizer.from_file(sys.argv[1]); t.no_truncation(); t.no_padding()\n"
                "x = open(sys.argv[2], encoding='utf-8').read().splitlines()\n"
                "mb, w, c = sum(len(s.encode()) for s in x) / 1e6, [], []\n"
                "for _ in range(5):\n"
                "    a, b = time.perf_counter(), time.process_time()\n"
                "    for i in range(0, len(x), 1000): t.encode_batch_fast(x[i:i + 1000])\n"
                "    w.append(time.perf_counter() - a); c.append(time.process_time() - b)\n"
                "print(mb / min(w), mb / min(c))\n")
        env = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        p = run([self.python, "-c", code, self.model / "tokenizer.json", texts], env)
        wall, cpu = (float(x) for x in p["text"].split())
        return {"mb_s": wall, "mb_cpu_s": cpu}
