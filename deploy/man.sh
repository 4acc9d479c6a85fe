#!/usr/bin/env bash
# man.sh BIN DIR: writes the man pages of the programs in BIN into DIR, hone.1 and one for
# each verb. The texts are those of --help (base/args_man.c). Run by `cmake --install`.
set -euo pipefail
bin=$1 dir=$2
mkdir -p "$dir"

# page PROGRAM [VERB]: written whole or not at all.
page() {
    local file=$dir/$1${2:+-$2}.1
    "$bin/$1" ${2:+"$2"} --help-man >"$file.new"
    mv "$file.new" "$file"
}
for program in hone honed hone-worker; do
    page "$program"
done
for verb in $("$bin/hone" --complete "" | cut -f1 | grep -v '^-'); do
    page hone "$verb"
done
for verb in $("$bin/honed" --complete "" | cut -f1 | grep -v '^-'); do
    page honed "$verb"
done
