#!/usr/bin/env bash
# hone verify on recorded numbers: 0 within tolerance, 1 out of it, 2 for wrong input.
set -u
bin=${HONE_BIN:?}
golden=${HONE_SHARED:-../shared}/fixtures/golden/families
if [ ! -d "$golden" ]; then
    echo "skipped: $golden is not here"
    exit 77
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
status=0

# expect CODE WORDS ARGS...: exit status, and words on either stream.
expect() {
    local code=$1 words=$2
    shift 2
    "$bin/hone" verify "$@" >"$out/text" 2>&1
    local got=$?
    if [ "$got" != "$code" ] || ! grep -q -- "$words" "$out/text"; then
        echo "hone verify $*: exit $got (want $code), want \"$words\" in:"
        cat "$out/text"
        status=1
    fi
}

for family in bert bert-mlm roberta distilbert llama llama3.2-style llama-reward \
    gpt2 gpt2-prefixed qwen2 qwen2-reward qwen3 mistral; do
    expect 0 ' 0 out of tolerance' --model "$golden/$family" \
        --golden "$golden/$family/golden.safetensors"
done
bert=$golden/bert
file=$bert/golden.safetensors
expect 0 '"failed":0' --model "$bert" --golden "$file" --json
expect 1 'out of tolerance' --model "$bert" --golden "$file" --rtol 1e-9
expect 2 'rtol' --model "$bert" --golden "$file" --rtol 5x
expect 2 'golden' --model "$bert"
expect 2 'nowhere' --model "$bert" --golden "$out/nowhere.safetensors"
expect 2 'input_ids' --model "$bert" --golden "$bert/model.safetensors"
head -c 1000 "$file" >"$out/cut.safetensors"
expect 2 'cut.safetensors' --model "$bert" --golden "$out/cut.safetensors"
exit $status
