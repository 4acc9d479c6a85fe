#!/usr/bin/env bash
# hone tokenize and hone data show | prefer | export with the real worker and a tiny model.
. "$(dirname "$0")/common.sh"
python3 "$here/make_tiny.py" "$dir"

model=$(python3 -c 'import re; print(re.search(r"^model: *(\S+)", open("job.yaml").read(), re.M)[1])')

echo "tokenize: ids and tokens in order, bad lines named"
printf 'a good film\n{"text": "boring"}\n{"text": 3}\n{"text1": "a", "text2": "b"}\n' >in
expect 2 "$worker" tokenize --model "$model" --input in --decode
says 'row 3: "text" must be a string'
python3 - <<'PY' || fail "tokens"
import json
rows = [json.loads(l) for l in open("out")]
assert len(rows) == 3
for r in rows:
    assert len(r["ids"]) == len(r["tokens"]) and r["tokens"][0] == "[CLS]", r
    assert r["tokens"][-1] == "[SEP]" and "[CLS]" not in r["decoded"], r
assert rows[2]["tokens"].count("[SEP]") == 2
PY
printf 'a good film' | "$worker" tokenize --model "$model" --no-special >out
grep -q CLS out && fail "special tokens were not asked for"
expect 2 "$worker" tokenize
says "--model is missing"
expect 2 "$worker" tokenize --model nowhere

echo "export: every row of every split, once"
expect 0 "$worker" data export job.yaml
python3 - <<'PY' || fail "export"
import json
rows = [json.loads(l) for l in open("out")]
for split in ("train", "test"):
    want = [json.loads(l) for l in open(split + ".jsonl")]
    got = [r for r in rows if r["split"] == split]
    assert [r["text"] for r in got] == [r["text"] for r in want], split
    assert all(isinstance(r["label"], int) and r["label_text"] for r in got)
PY
cp out all
expect 0 "$worker" data export job.yaml --split test
cmp out <(grep '"split": "test"' all) || fail "one split"

echo "prefer: gold first, nearer labels before farther ones"
expect 0 "$worker" data prefer job.yaml
python3 - <<'PY' || fail "prefer"
import json
rows = [json.loads(l) for l in open("out")]
assert rows
for r in rows:
    y, K = r["label"], len(r["candidates"])
    assert r["order"] == sorted(range(K), key=lambda i: (abs(i - y), i)), r
PY

echo "show: a table and the same as JSON"
expect 0 "$worker" data show job.yaml
grep -q '^rows ' out || fail "no rows in the table"
expect 0 "$worker" data show job.yaml --json
python3 - <<'PY' || fail "show"
import json
d = json.load(open("out"))["splits"]
for split, s in d.items():
    rows = [l for l in open(split + ".jsonl")]
    assert s["rows"] == len(rows) == sum(x["rows"] for x in s["labels"]), split
    assert s["rows"] == sum(x["rows"] for x in s["histogram"])
PY

echo "bad data: all rows named, exit 2, nothing on standard output"
printf '{"text": "a", "label": 99}\n{"text": "a"}\n' >bad.jsonl
expect 2 "$worker" data export job.yaml --set data.train=bad.jsonl
says "bad.jsonl: row 1: label 99 is not below"
says 'bad.jsonl: row 2: "label" is missing'
[ ! -s out ] || fail "rows of bad data were written"
expect 2 "$worker" data exprot job.yaml
says "did you mean export?"
expect 2 "$worker" data export job.yaml --split dev
expect 0 "$worker" data --help
echo "ok"
