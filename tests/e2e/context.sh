#!/usr/bin/env bash
# Daemons with names: added, listed, chosen and taken out as a user does it; files written
# by hand, wrong in every way. Whatever is wrong, no other daemon is asked than the one that
# was meant, and a refused command leaves the file as it was.
. "$(dirname "$0")/common.sh"
file=$dir/config/hone/config.yaml
socket=unix:$dir/state/hone/socket

refused() { # TEXT COMMAND...: exit 2, and the file stays
    local text=$1 before
    shift
    before=$(cat "$file" 2>/dev/null || true)
    expect 2 "$@"
    says "$text"
    [ ! -s out ] || fail "it printed something"
    [ "$before" = "$(cat "$file" 2>/dev/null || true)" ] || fail "the file was changed"
}
chosen() { # NAME
    expect 0 "$hone" context list
    grep -q "^\* $1 " out || fail "$1 is not the default"
}

start_honed
echo "add, list, use, remove"
chosen here
[ ! -e "$file" ] || fail "a file came of looking"
expect 0 "$hone" context add own "$socket"
expect 0 "$hone" ps --to own
expect 0 "$hone" ps
chosen here
expect 0 "$hone" context add far localhost:1 --use
chosen far
expect 4 "$hone" ps
expect 0 "$hone" ps --to own
expect 0 "$hone" ps --to here
expect 0 env HONE_TO=own "$hone" ps
expect 0 "$hone" context use own
expect 0 "$hone" ps
echo hone_secret >token
umask 022
refused "is not there" "$hone" context add lab gpu1:4663 --token-file nofile
chmod 644 token
refused "others may read this token" "$hone" context add lab gpu1:4663 --token-file token
chmod 600 token
expect 0 "$hone" context add lab gpu1:4663 --token-file token
expect 0 "$hone" context list --json
python3 - "$dir/token" <<'PY' || fail "the list"
import json, sys
j = json.load(open("out"))
assert j["default"] == "own" and [d["name"] for d in j["daemons"]] == ["own", "far", "lab"], j
assert j["daemons"][2]["token_file"] == sys.argv[1] and "hone_secret" not in str(j), j
PY
! grep -q hone_secret "$file" || fail "the token is in the file"
expect 0 "$hone" context remove own
says "was the default"
chosen here
refused "no daemon is called" "$hone" context use own
refused "no daemon is called" "$hone" context remove own
refused "has a daemon \"lab\" already" "$hone" context add lab gpu2:1
for name in here "" a.b "a b" -x $'a\nb' ../x "$(printf 'x%.0s' {1..80})"; do
    refused "" "$hone" context add -- "$name" gpu1:1
done
refused "" "$hone" context add new nohost
refused "belong together" "$hone" context add new gpu1:1 --certificate token
refused "that is not how it goes" "$hone" context frobnicate
refused "that is not how it goes" "$hone" context use

echo "written by hand"
wrong() { # TEXT CONTENT [hone options]: refused by what asks a daemon
    printf '%b' "$2" >"$file"
    refused "$1" "$hone" ps "${@:3}"
}
own="own: {address: \"$socket\"}"
wrong 'the default "nope" is none of its daemons' "default: nope\ndaemons:\n  $own\n"
expect 0 "$hone" ps --to own
expect 0 "$hone" context use own
expect 0 "$hone" ps
wrong 'is a name, or an address' "default: [own]\ndaemons:\n  $own\n"
wrong 'is a map of names' "daemons: 3\n" --to own
wrong 'a daemon is a map' "daemons:\n  own: 3\n" --to own
wrong 'did you mean default?' "defualt: own\ndaemons:\n  $own\n"
wrong 'unknown key "adress"' "daemons:\n  own: {adress: \"$socket\"}\n" --to own
wrong 'given twice' "daemons:\n  $own\n  $own\n" --to own
wrong 'this is no map' "- a\n"
wrong 'this is no map' "hello\n"
wrong 'control characters' 'a: \0001\n'
wrong 'not allowed' "default: &x own\n"
wrong 'token' "daemons:\n  own: {address: \"$socket\", token_file: /dev/zero}\n" --to own
wrong 'nested deeper' "a: $(printf '[%.0s' {1..500})\n"
head -c 2000000 /dev/zero | tr '\0' a >"$file"
refused "at most 1048576" "$hone" ps
for kind in mkfifo mkdir; do
    rm -rf "$file"
    $kind "$file"
    expect 2 timeout 10 "$hone" ps
    rm -rf "$file"
done
for empty in "daemons:\n" "{}\n" "default:\ndaemons: {}\n"; do
    printf '%b' "$empty" >"$file"
    expect 0 "$hone" ps
    expect 0 "$hone" context add own "$socket" --use
    chosen own
done
chmod 500 "$dir/config/hone" "$dir/config"
[ "$(id -u)" = 0 ] || expect 1 "$hone" context use here
chmod 700 "$dir/config" "$dir/config/hone"
echo "context: all well"
