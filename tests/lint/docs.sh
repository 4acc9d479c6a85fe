#!/usr/bin/env bash
# Files that the documents name exist. A name is a path in backquotes or a link that begins
# with one of our folders and holds no placeholder.
set -eu
cd "$(dirname "$0")/../.."
status=0
for doc in README.md CONTRIBUTING.md docs/*.md; do
    for path in $(grep -oE '(`|\()(base|kernels|proto|worker|daemon|launcher|deploy|tests|docs|cmake)/[A-Za-z0-9_./-]+' \
        "$doc" | tr -d '`(' | sort -u); do
        case $path in deploy/cache* | deploy/runs*) continue ;; esac
        if [ ! -e "$path" ]; then
            echo "$doc: there is no $path"
            status=1
        fi
    done
done
exit $status
