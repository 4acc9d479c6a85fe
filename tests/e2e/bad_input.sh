#!/usr/bin/env bash
# What a hostile or hurried user does to the real programs: each wrong job, data file,
# checkpoint and folder is refused with exit status 2, one line "hone: what: where: why",
# and no folder left behind; what fails in the middle ends with 1 and can be resumed.
. "$(dirname "$0")/common.sh"
mounted=
tidy_more() {
    [ -z "$mounted" ] || umount "$mounted" || true
}
python3 "$here/make_tiny.py" "$dir"

# expect STATUS COMMAND...: its exit status; out, err: what it said.
expect() {
    local want=$1 got=0
    shift
    timeout 60 "$@" >out 2>err </dev/null || got=$?
    [ "$got" = "$want" ] || fail "exit status $got, not $want: $*"
}

well_formed() {
    head -1 err | grep -q '^hone: ' || fail "the first line is no \"hone: what\""
    grep -qvE '^(hone: |  try: )' err && fail "a line is neither \"hone:\" nor \"try:\""
    return 0
}

# refused NAME TEXT COMMAND...: exit 2, the text said, no folder `new` left behind.
refused() {
    local name=$1 text=$2
    shift 2
    echo "$name"
    expect 2 "$@"
    well_formed
    says "$text"
    [ ! -e new ] || fail "a folder was left behind"
}

job() { refused "$1" "$2" "$hone" run case.yaml --out new; }       # of case.yaml
set_() { refused "--set $1" "$2" "$hone" run job.yaml --out new --set "$1"; }
edit() { sed "$1" job.yaml >case.yaml; }

# ---- job files ----

echo "misspelt keys: all of them at once, each with its mend"
sed -e 's/epochs: 2/epocs: 2/; s/^seed/sead/; s/  train:/  trian:/; s/  ppo:/  pppo:/' \
    job.yaml >case.yaml
expect 2 "$hone" run case.yaml --out new
well_formed
for word in epochs seed train ppo; do says "did you mean \"$word\"?"; done
says "case.yaml:2:1: unknown key"
[ ! -e new ] || fail "a folder was left behind"

set_ stages.sft.batch=4x 'must be a whole number, found "4x"'
set_ stages.sft.batch=0 'must be within 1'
set_ stages.sft.lr=-1 'must be within 0'
set_ stages.sft.lr=nan 'must be a number'
set_ stages.sft.lr=1e400 'must be a number'
set_ stages.sft.batch=99999999999999999999 'must be a whole number'
set_ 'stages.sft.epochs=[1]' 'found a list'
[ "$(wc -l <err)" = 1 ] || fail "what follows from a problem was reported too"
set_ stages.sft.select=bst 'did you mean "best"?'
set_ stages.rm.select_metric=accuracy 'stage rm does not measure "accuracy"'
set_ 'stages.sft.needs=[ppo]' 'runs in a circle: sft -> ppo -> sft'
set_ 'stages.sft.needs=[nope]' 'which is no stage of this job'
set_ nokey 'expected KEY=VALUE'
set_ 'task.labels=[a, a]' 'given twice'
set_ task.order=ordnal 'did you mean "ordinal"?'
set_ task.candidate=x 'no {label} in it'
set_ data.max_tokens=12 'at least 13'
set_ data.max_tokens=65 "beyond the model's 64 positions"
set_ name=../x "part of a folder's name"

job_text() { printf '%b' "$3" >case.yaml && job "$1" "$2"; } # NAME TEXT CONTENT
job_text "an empty job" "the file is empty" ''
job_text "a NUL" "control characters" 'name: x\0\n'
job_text "not UTF-8" "is not UTF-8" 'name: \0377\n'
job_text "a lone surrogate" "invalid Unicode" '{"name": "\\ud800"}'
job_text "a YAML bomb" "aliases" 'a: &a [x, x]\nb: [*a, *a]\n'
job_text "a tag" "tags (!)" 'seed: !!int 1\n'
job_text "two documents" "more than one YAML document" 'seed: 1\n---\nseed: 2\n'
job_text "a key twice" "given twice" 'seed: 1\nseed: 2\n'
job_text "a list" "must be a map of keys" '- a\n'
job_text "JSON cut short" "near end of file" '{"name": "x"'
head -c 100000 /dev/zero | tr '\0' '[' >case.yaml
job "depth" "nested deeper than 64"
head -c 1100000 /dev/zero | tr '\0' '#' >case.yaml
job "a job of more than 1 MiB" "at most 1048576 are allowed"
refused "a job that is not there" "No such file" "$hone" run nowhere.yaml --out new
refused "a folder as a job" "is a directory" "$hone" run model --out new
refused "a misspelt option" "did you mean --resume?" "$hone" run job.yaml --resum
refused "a misspelt verb" "did you mean hone run?" "$hone" rnu
refused "an unknown stage" "did you mean rm?" "$hone" run job.yaml --out new --stages sft,rmm
refused "a stage without what it needs" "needed is also sft" \
    "$hone" run job.yaml --out new --stages rm

# ---- data ----

# row NAME TEXT CONTENT: train.jsonl with one more line, through hone and the worker alone.
edit 's/train: train.jsonl/train: case.jsonl/'
cp case.yaml data.yaml
row() {
    cp train.jsonl case.jsonl
    printf '%b\n' "$3" >>case.jsonl
    refused "data: $1" "$2" "$hone" run data.yaml --out new
    says "row 97"
    refused "data: $1 (hone-worker)" "$2" "$worker" data.yaml --out new
    [ "$(grep -c 'row 97' err)" = 1 ] || fail "the problem was said twice"
}
row "a label out of range" "label 7 is not below 3" '{"text": "x", "label": 7}'
row "an unknown label" 'did you mean "positive"?' '{"text": "x", "label": "postive"}'
row "a label missing" '"label" is missing' '{"text": "x"}'
row "a text missing" '"text" is missing' '{"label": 1}'
row "not UTF-8" "not UTF-8" '{"text": "\0377", "label": 1}'
row "a NUL" "holds a NUL" '{"text": "a\0b", "label": 1}'
row "an escaped NUL" "holds a NUL" '{"text": "a\\u0000b", "label": 1}'
row "a lone surrogate" "invalid Unicode" '{"text": "\\ud800", "label": 1}'
row "no object" "no JSON object" '[1]'
row "cut short" "premature end" '{"text": "abc'
row "depth" "nested deeper" "{\"text\":$(head -c 5000 /dev/zero | tr '\0' '[')"

cp train.jsonl case.jsonl
for _ in $(seq 1000); do echo '{"text": "x", "label": 7}'; done >>case.jsonl
for program in "$hone run" "$worker" "$worker --set seeds=2"; do
    # shellcheck disable=SC2086
    refused "data: many bad rows (${program#"$bin/"})" "and 980 more bad rows" \
        $program data.yaml --out new
    [ "$(grep -c 'row 97:' err)" = 1 ] || fail "a problem was said twice"
done

plain() { refused "data: $1" "$2" "$hone" run data.yaml --out new; } # of case.jsonl
{
    cat train.jsonl
    printf '{"text": "'
    head -c 17000000 /dev/zero | tr '\0' 'a'
    printf '", "label": 1}\n'
} >case.jsonl
plain "a line of more than 16 MiB" "longer than 16 MiB"
: >case.jsonl
plain "an empty file" "the file is empty"
printf '\n\n' >case.jsonl
plain "no rows" "no rows for train"
rm case.jsonl
plain "no file" "No such file"
mkdir case.jsonl
plain "a folder" "is a directory"
rmdir case.jsonl
printf 'a\t1\nb\n' >case.tsv
sed 's/train: train.jsonl/train: case.tsv\n  format: {kind: tsv, header: false}\n  columns: {text: 1, label: 2}/' job.yaml >case.yaml
job "data: a column missing" "row 2: 1 columns"
gzip -c train.jsonl | head -c 300 >case.jsonl.gz
edit 's/train: train.jsonl/train: case.jsonl.gz/'
job "data: a .gz cut short" "cut short"
printf '\n' >none.jsonl
edit 's/validation: validation.jsonl/validation: none.jsonl/'
job "data: validation without rows" "no rows for validation"
refused "data: validation without rows (hone-worker)" "no rows for validation" \
    "$worker" case.yaml --out new
edit '/validation: validation.jsonl/d'
job "data: no validation to select by" "there is no validation split"

echo "data: one class alone is a warning"
grep '"label": 1' train.jsonl >case.jsonl
expect 0 "$hone" check data.yaml
says 'training rows have the label "neutral"'

# ---- checkpoints ----

# checkpoint NAME TEXT PYTHON: the model's folder `m` after Python has been at it.
edit 's/model: model/model: m/'
cp case.yaml model.yaml
cat >harm.py <<'PY'
import json, os, shutil, struct, sys
shutil.rmtree("m", ignore_errors=True)
shutil.copytree("model", "m")
S = open("model/model.safetensors", "rb").read()
n = struct.unpack("<Q", S[:8])[0]
H, D = json.loads(S[8:8 + n]), S[8 + n:]
W, B = "encoder.layer.1.output.dense.weight", "pooler.dense.bias"
def write(name, b): open("m/" + name, "wb").write(b)
def weights(header=None, data=None):
    t = header if isinstance(header, bytes) else json.dumps(header or H).encode()
    write("model.safetensors", struct.pack("<Q", len(t)) + t + (D if data is None else data))
def tensor(name, **kw):
    H[name].update(kw)
    weights()
def config(**kw):
    c = json.load(open("model/config.json"))
    c.update(kw)
    write("config.json", json.dumps({k: v for k, v in c.items() if v != "DEL"}).encode())
exec(sys.argv[1])
PY
checkpoint() {
    python3 harm.py "$3"
    refused "checkpoint: $1" "$2" "$hone" run model.yaml --out new
}
checkpoint "config.json broken" "config.json:1:" 'write("config.json", b"{\"model_type\":")'
checkpoint "config.json deep" "nested deeper" 'write("config.json", b"[" * 100000)'
checkpoint "model_type unknown" "bert, distilbert, gpt2, llama" 'config(model_type="bart")'
checkpoint "model_type missing" '"model_type" is missing' 'config(model_type="DEL")'
checkpoint "heads that do not divide" "do not divide the width" 'config(num_attention_heads=5)'
checkpoint "a size that is huge" "num_hidden_layers" 'config(num_hidden_layers=10**9)'
checkpoint "another width" "config.json asks for [111, 64]" 'config(hidden_size=64)'
checkpoint "a layer too many" "encoder.layer.1." 'config(num_hidden_layers=1)'
checkpoint "a layer too few" "tensors missing (16): encoder.layer.2." \
    'config(num_hidden_layers=3)'
checkpoint "a tensor misshapen" "encoder.layer.1.output.dense.weight is [128, 32]" \
    'tensor(W, shape=[128, 32])'
checkpoint "a tensor extra" "does not know (1): foo.weight" \
    'H["foo.weight"] = dict(dtype="F32", shape=[1], data_offsets=[len(D), len(D) + 4]); weights(data=D + bytes(4))'
checkpoint "a tensor missing" "tensors missing (1): encoder.layer.1.output.LayerNorm.bias" \
    'k = list(H); [H.pop(x) for x in k[-3:]]; weights(data=D[:H[k[-4]]["data_offsets"][1]])'
checkpoint "integers" "is I32" 'tensor(B, dtype="I32")'
checkpoint "cut short" "reach beyond the file" 'write("model.safetensors", S[:-100])'
checkpoint "the header cut short" "the header claims" 'write("model.safetensors", S[:200])'
checkpoint "an empty file" "too few for a safetensors file" 'write("model.safetensors", b"")'
checkpoint "a header of 2^64-1 bytes" "at most 100000000 are allowed" \
    'write("model.safetensors", b"\xff" * 8 + b"{}")'
checkpoint "a tensor twice" "duplicate object key" \
    'weights(json.dumps(H).encode()[:-1] + b", \"pooler.dense.bias\": {}}")'
checkpoint "overlap" "overlap" 'tensor(B, data_offsets=[0, 128])'
checkpoint "offsets beyond the file" "reach beyond" 'tensor(B, data_offsets=[len(D), len(D) + 128])'
checkpoint "offsets reversed" "data_offsets [128, 0]" 'tensor(B, data_offsets=[128, 0])'
checkpoint "a shape that overflows" "the shape overflows" 'tensor(B, shape=[2**33, 2**33])'
checkpoint "a negative shape" "integers, 0 or more" 'tensor(B, shape=[-32])'
checkpoint "a deep header" "nested deeper" 'weights(b"{\"a\":" * 5000)'
checkpoint "a pickle" "convert it once" 'os.rename("m/model.safetensors", "m/pytorch_model.bin")'
checkpoint "no weights" "no model.safetensors" 'os.remove("m/model.safetensors")'
checkpoint "a fifo" "not a regular file" 'os.remove("m/config.json"); os.mkfifo("m/config.json")'
checkpoint "no tokenizer" "neither tokenizer.json nor vocab.txt" 'os.remove("m/vocab.txt")'
checkpoint "a tokenizer of another kind" "Unigram" \
    'write("tokenizer.json", b"{\"model\": {\"type\": \"Unigram\", \"vocab\": []}}")'
checkpoint "a shard outside the folder" "no name of a file in the folder" \
    'os.remove("m/model.safetensors"); write("model.safetensors.index.json", b"{\"weight_map\": {\"a\": \"../../x\"}}")'
edit 's/model: model/model: nowhere/'
job "checkpoint: no folder" "No such file"

echo "checkpoint: a vocabulary smaller than the tokenizer's is a warning"
python3 harm.py 'write("vocab.txt", open("model/vocab.txt", "rb").read() + b"aaaa\n")'
expect 0 "$hone" check model.yaml
says "the model's vocabulary has 111"

# ---- folders ----

mkdir mine
echo precious >mine/file
for program in "$hone run" "$worker"; do
    # shellcheck disable=SC2086
    for more in "" --resume; do
        refused "a folder with other files ($(basename "${program% run}") $more)" "not empty" \
            $program job.yaml --out mine $more
        [ "$(ls -A mine)" = file ] || fail "something was written into it"
    done
    # shellcheck disable=SC2086
    refused "a file as --out" "" $program job.yaml --out job.yaml
    # shellcheck disable=SC2086
    refused "--out below a file" "" $program job.yaml --out job.yaml/x
done
expect 0 "$hone" run job.yaml --out done
find done -type f ! -name '*lock*' ! -name log -exec sha256sum {} + | sort >before
refused "a folder with a run" "holds another run" "$hone" run job.yaml --out done
refused "a changed job" 'it says "seed: 1", now it is "seed: 2"' \
    "$worker" job.yaml --out done --resume --set seed=2
echo "a finished run is left as it is"
expect 0 "$hone" run job.yaml --out done --resume
find done -type f ! -name '*lock*' ! -name log ! -name report.html -exec sha256sum {} + |
    sort >after
grep -v report.html before | cmp - after || fail "it was written over"

echo "what a resume counts on is missing"
rm done/sft/metrics.jsonl
printf x >>done/sft/final/model.safetensors
expect 2 "$hone" run job.yaml --out done --resume
says "metrics.jsonl: is missing"
rm -rf done
expect 0 "$hone" run job.yaml --out done

# ---- numbers ----

for steps in 3 20; do
    echo "weights that are not finite: $steps steps"
    python3 harm.py 'o = 8 + n + H[W]["data_offsets"][0]; write("model.safetensors", S[:o] + b"\0\0\xc0\x7f" + S[o + 4:])'
    rm -rf nan
    expect 1 "$hone" run model.yaml --out nan --set stages.sft.epochs=0 \
        --set stages.sft.steps=$steps
    says "were not finite for"
    says "began at step 1 in layer.1.ff.out.w"
    grep -q '"state": "failed"' nan/summary.json || fail "the summary does not say so"
done

# ---- standard input and output ----

model=done/sft/final
echo "a full or closed standard output"
for what in "check job.yaml" "data show job.yaml" "report done" "--help" \
    "predict --model $model --input test.jsonl" "eval --model $model --data test.jsonl" \
    "tokenize --model model --input test.jsonl"; do
    expect 1 sh -c "'$hone' $what >/dev/full"
    says "standard output: No space left"
done
expect 1 sh -c "'$hone' predict --model $model --input test.jsonl >&-"
expect 1 sh -c "'$hone' predict --model $model <&-"
says "standard input: Bad file descriptor"
got=$(yes plot | head -20000 | "$hone" predict --model "$model" | head -1 | wc -l) || true
[ "$got" = 1 ] || fail "a reader that leaves"

echo "predict: CRLF, no text, a line too long"
printf '\357\273\277{"text": "good film"}\r\ngood film\r\n' | "$hone" predict --model "$model" >out
[ "$(sort -u out | wc -l)" = 1 ] || fail "BOM and CRLF are not seen"
expect 0 "$hone" predict --model "$model" --json
[ ! -s out ] || fail "answers to nothing"
{ echo good; head -c 17000000 /dev/zero | tr '\0' 'a'; printf '\nlast'; } >in
expect 2 "$hone" predict --model "$model" --input in
says "row 2: longer than"
[ "$(wc -l <out)" = 2 ] || fail "the other lines were not answered"
refused "eval: no file" "nowhere.jsonl: No such file" \
    "$hone" eval --model "$model" --data nowhere.jsonl

echo "--json: one document, or one object a line"
for what in "check job.yaml" "data show job.yaml" "data export job.yaml" \
    "data prefer job.yaml" "report done" "eval --model $model --data test.jsonl" \
    "predict --model $model --input test.jsonl" "tokenize --model model --input test.jsonl"; do
    # shellcheck disable=SC2086
    expect 0 "$hone" $what --json
    python3 - <<'PY' || fail "not JSON: $what"
import json
s = open("out").read()
try:
    json.loads(s)
except ValueError:
    [json.loads(line) for line in s.splitlines()]
PY
done

echo "--help and --version of everything"
for verb in run check data eval predict report tokenize verify; do
    expect 0 "$hone" $verb --help
    grep -q '^usage: ' out || fail "no usage"
done
for program in hone honed hone-worker; do
    expect 0 "$bin/$program" --help
    expect 0 "$bin/$program" --version
    grep -q "^$program [0-9]" out || fail "no version"
done

# ---- permission ----

nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups)
if [ "$(id -u)" != 0 ]; then
    nobody=()
fi
if [ "$(id -u)" != 0 ] || { command -v setpriv >/dev/null && "${nobody[@]}" "$hone" --version >out 2>err; }; then
    chmod 755 "$dir"
    for file in train.jsonl model/config.json model/model.safetensors model/vocab.txt; do
        chmod 000 $file
        refused "no permission: $file" "$file: Permission denied" \
            "${nobody[@]}" "$hone" check job.yaml
        chmod 644 $file
    done
    chmod 555 "$dir"
    refused "no permission: the run's folder" "Permission denied" \
        env TMPDIR=/tmp "${nobody[@]}" "$hone" run job.yaml --out "$dir/new"
    chmod 755 "$dir"
else
    echo "skipped: no permission: setpriv gives up no rights here"
fi

# ---- disks ----

mkdir disk
if mount -t tmpfs -o size=1200k tmpfs disk 2>/dev/null; then
    mounted=$dir/disk
    echo "a disk that fills in the middle"
    long=(--set stages.sft.epochs=6)
    expect 1 "$hone" run job.yaml "${long[@]}" --out disk/run
    says "No space left on device"
    says "free some disk space"
    [ -f disk/run/sft/checkpoint-10/manifest.json ] || fail "the last good checkpoint is gone"
    grep -q '"state": "failed"' disk/run/summary.json || fail "the summary does not say so"
    mount -o remount,size=40m disk
    expect 0 "$hone" run job.yaml "${long[@]}" --out disk/run --resume
    expect 0 "$hone" run job.yaml "${long[@]}" --out whole
    for stage in sft rm ppo; do
        cmp {whole,disk/run}/$stage/final/model.safetensors || fail "$stage differs"
    done
    mount -o remount,ro disk
    refused "a disk that is read-only" "Read-only file system" \
        "$hone" run job.yaml --out disk/new
    refused "a run on it" "Read-only file system" \
        "$hone" run job.yaml "${long[@]}" --out disk/run --resume
else
    echo "skipped: a disk that fills, a read-only one: no permission to mount"
fi
echo "bad input: all well"
