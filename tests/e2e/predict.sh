#!/usr/bin/env bash
# hone predict and hone eval with the real worker and a tiny model: order, bad lines, answers
# before the input ends, pairs of formats, numbers that agree with what the run measured.
. "$(dirname "$0")/common.sh"
python3 "$here/make_tiny.py" "$dir"

"$worker" job.yaml --out run >/dev/null 2>err || fail "the run"
model=run/sft/final

echo "every row in order, the numbers of the run"
expect 0 "$worker" predict --model "$model" --input test.jsonl
python3 - out <<'PY' || fail "answers"
import json, math
got = [json.loads(l) for l in open("out")]
rows = [json.loads(l) for l in open("test.jsonl")]
want = [json.loads(l) for l in open("run/sft/predictions-test.jsonl")]
assert [g["text"] for g in got] == [r["text"] for r in rows]
names = ["negative", "neutral", "positive"]
for g, w in zip(got, want):
    assert g["label"] == names[g["label_id"]] and g["label_id"] == w["prediction"]
    assert abs(sum(g["probabilities"]) - 1) < 1e-6
    assert g["probabilities"] == w["probabilities"], (g, w)
PY

echo "the same one by one: no neighbour matters"
cp out all
while read -r line; do
    printf '%s\n' "$line" | "$worker" predict --model "$model"
done < <(head -5 test.jsonl) >some
cmp some <(head -5 all) || fail "a text's answer depends on its neighbours"

echo "bad lines are named, the rest is answered"
printf 'a good film\n\n{"text": "boring"}\n{"text": 3}\n{broken\n\377\376\n{"text": "fun"}' >in
expect 2 "$worker" predict --model "$model" --input in
[ "$(wc -l <out)" = 3 ] || fail "not three answers"
grep -q '"a good film"' <(head -1 out) && grep -q '"fun"' <(tail -1 out) || fail "order"
for row in 2 4 5 6; do says "row $row"; done
says "4 bad lines"

echo "a line is answered before the next one comes"
python3 - "$worker" "$model" <<'PY' || fail "answers wait for input"
import json, os, select, subprocess, sys
p = subprocess.Popen([sys.argv[1], "predict", "--model", sys.argv[2]], stdin=subprocess.PIPE,
                     stdout=subprocess.PIPE)
buffer = b""
def answer():
    global buffer
    while b"\n" not in buffer:
        assert select.select([p.stdout], [], [], 20)[0], "no answer"
        more = os.read(p.stdout.fileno(), 65536)
        assert more
        buffer += more
    line, buffer = buffer.split(b"\n", 1)
    return json.loads(line)["text"]
for text in (b"great", b"dull", b"fine"):
    p.stdin.write(text + b"\n")
    p.stdin.flush()
    assert answer() == text.decode()
p.stdin.write(b"one\ntwo\nthree")  # no newline at the end
p.stdin.close()
assert [answer() for _ in range(3)] == ["one", "two", "three"]
assert p.wait() == 0
PY

echo "thousands of lines and a pair"
for i in $(seq 3000); do echo "plot $i"; done >in
expect 0 "$worker" predict --model "$model" --input in
[ "$(wc -l <out)" = 3000 ] || fail "not 3000 answers"
tail -1 out | grep -q '"plot 3000"' || fail "order of many"
printf '{"text1": "good", "text2": "bad"}\n' >in
expect 0 "$worker" predict --model "$model" --input in
grep -q '"text1": "good", "text2": "bad"' out || fail "pair"

echo "eval agrees with the run"
expect 0 "$worker" eval --model "$model" --data test.jsonl --task job.yaml --json
python3 - <<'PY' || fail "eval"
import json
got = json.load(open("out"))
want = json.load(open("run/sft/stage.json"))
for k, v in want["metrics"]["test"].items():
    assert abs(got["metrics"][k] - v) < 1e-8, (k, got["metrics"][k], v)
assert got["confusion"] == want["confusion"]
PY
expect 0 "$worker" eval --model "$model" --data test.jsonl
grep -q "macro-F1" out || fail "table"

echo "what cannot be done is said"
expect 2 "$worker" predict --model "$model" --input nowhere.jsonl
says "nowhere.jsonl"
expect 2 "$worker" predict --model model
says "head"
expect 2 "$worker" predict --model run/rm/final
says "no classifier"
expect 2 "$worker" predict
says "--model"
sed 's/"label": [0-9]/"label": 7/' test.jsonl >bad.jsonl
expect 2 "$worker" eval --model "$model" --data bad.jsonl
says "label"
expect 2 "$worker" eval --model "$model" --data empty.jsonl
expect 1 sh -c "\"$worker\" predict --model $model --input test.jsonl >/dev/full"
echo "hone predict, hone eval: all well"
