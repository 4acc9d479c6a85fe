#!/usr/bin/env bash
# What deploy/ gives to those who run a daemon: honed's configuration as a file (the flags
# win, what is wrong is refused with its place), the unit and the example that use it, a
# dashboard that asks for nothing that honed does not serve, and a recipe for a container
# whose packages hold every library that the programs load.
. "$(dirname "$0")/common.sh"
need curl
deploy=$here/../../deploy
metrics() { # of the daemon's HTTP port
    curl -s -m 20 -H "Authorization: Bearer $token" "$(sed -n \
        's/.*listening on http:\([0-9.:]*\).*/http:\/\/\1\/metrics/p' honed.log | tail -1)" >out
}
served() { # NAME VALUE
    metrics
    grep -qx "$1 $2" out || fail "$1 is not $2"
}

echo "a configuration file: its keys are the flags, relative to it, and the flags win"
mkdir -p config/hone
cat >config/hone/honed.yaml <<'Y'
state: ../../place
listen: http:127.0.0.1:0
keep_jobs: 77
max_state: 5
Y
export HONE_TO=unix:$dir/place/socket
token=$("$bin/honed" token add eve --role viewer)
[ -e place/credentials ] || fail "honed token did not read the file"
start_honed --max-state 9
served hone_jobs_ended_limit 77
served hone_state_limit_bytes $((9 << 20))
kill_honed
cp config/hone/honed.yaml other.yaml
sed -i 's/77/78/; s/\.\.\/\.\.\/place/place/' other.yaml
start_honed --config other.yaml
served hone_jobs_ended_limit 78
served hone_state_limit_bytes $((5 << 20))

echo "the dashboard asks for what is served"
metrics
python3 - "$deploy/grafana.json" out <<'PY' || fail "the dashboard"
import json, re, sys
board = json.load(open(sys.argv[1]))
served = {re.match(r"\w+", l).group(0) for l in open(sys.argv[2]) if not l.startswith("#")}
asked = [t["expr"] for p in board["panels"] for t in p["targets"]]
asked += [v["query"] for v in board["templating"]["list"]]
names = {n for e in asked for n in re.findall(r"\bhone_\w+", e)}
assert len(names) > 10 and names <= served, names - served
assert served <= names, f"nobody sees {served - names}"
places = [tuple(p["gridPos"][k] for k in "xywh") for p in board["panels"]]
for i, (x, y, w, h) in enumerate(places):
    assert x + w <= 24
    for u, v, a, b in places[:i]:
        assert x >= u + a or u >= x + w or y >= v + b or v >= y + h, "panels overlap"
PY
kill_honed

echo "what is wrong in the file is said with its place"
wrong() { # LINE WORDS
    echo "$1" >wrong.yaml
    expect 2 "$bin/honed" --config wrong.yaml
    says "wrong.yaml:1:1: $2"
}
wrong 'keep_job: 3' 'keep_job: unknown key'
says "did you mean keep_jobs?"
wrong 'owner: 3' 'owner: unknown key'
wrong 'keep_jobs: [1, 2]' 'keep_jobs: one value is needed'
wrong 'listen: [{a: b}]' 'listen: a list of texts is needed'
echo 'keep_jobs: many' >wrong.yaml
expect 2 "$bin/honed" --config wrong.yaml
says "--keep-jobs"
expect 2 "$bin/honed" --config nowhere.yaml
says "nowhere.yaml"

echo "the unit reads that file, and the example is one"
grep -q '^ExecStart=/usr/local/bin/honed --config %E/hone/honed.yaml$' "$deploy/honed.service" ||
    fail "the unit"
sed 's/^listen:.*//; s/^root:.*/root: [.]/' "$deploy/honed.yaml" >example.yaml
start_honed --config example.yaml --state place
kill_honed

echo "the container's recipe: known words, files that exist, packages with every library"
python3 - "$deploy" "$bin" <<'PY' || fail "deploy/Containerfile"
import glob, json, os, re, shutil, subprocess, sys
deploy, bin = sys.argv[1:]
text = open(f"{deploy}/Containerfile").read()
lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.M)).split("\n")
words = [l.split(None, 1) for l in lines if l.strip()]
known = {"FROM", "SHELL", "COPY", "WORKDIR", "RUN", "USER", "VOLUME", "EXPOSE", "ENTRYPOINT"}
assert {w[0] for w in words} == known, {w[0] for w in words} ^ known
stages = set()
for name, rest in words:
    if name == "FROM":
        image = re.fullmatch(r"docker\.io/library/debian:12(?: AS (\w+))?", rest)
        stages.add(image.group(1))
    elif name in ("SHELL", "VOLUME", "ENTRYPOINT"):
        assert all(isinstance(x, str) for x in json.loads(rest)), rest
    elif name == "COPY" and rest.startswith("--from="):
        assert rest.split()[0][7:] in stages, rest
    elif name == "RUN":
        subprocess.run(["bash", "-n", "-c", rest], check=True)
run = next(r for n, r in words if n == "RUN" and "libuv1" in r)
packages = set(re.findall(r"(?<= )[a-z0-9.+-]+(?= )", run.split("--no-install-recommends")[1].split("&&")[0]))
assert "libuv1" in packages and "openmpi-bin" in packages, packages
if not shutil.which("dpkg-query") or "12" not in open("/etc/os-release").read():
    sys.exit(0)
needed = set()
for program in [f"{bin}/{p}" for p in ("hone", "honed", "hone-worker")] + [
        p for p in glob.glob(f"{bin}/../lib/hone/*.so") if "cuda" not in p]:
    dump = subprocess.run(["objdump", "-p", program], capture_output=True, text=True).stdout
    needed |= set(re.findall(r"NEEDED +(\S+)", dump))
base = {"libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2", "libgcc_s.so.1", "libstdc++.so.6"}
of = {}
for package in packages:
    files = subprocess.run(["dpkg-query", "-L", package], capture_output=True, text=True).stdout
    of.update({os.path.basename(f): package for f in files.split("\n")})
missing = {n for n in needed - base if n not in of}
assert not missing, f"no package for {missing}"
print(f"{len(needed - base)} libraries in {len(packages)} packages")
PY
echo "deploy: all well"
