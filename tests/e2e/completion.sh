#!/usr/bin/env bash
# Completions and man pages know every verb and every flag that --help knows, usages name no
# flag that is not there, and bash, zsh, fish, man and mandoc take what they are given.
set -uo pipefail
cd "$(dirname "$0")/../.."
bin=${HONE_BIN:?the folder of the programs}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0
wrong() {
    echo "$1"
    status=1
}
export HOME=$work XDG_CONFIG_HOME=$work XDG_STATE_HOME=$work PATH=$bin:$PATH

# ---- the tables, as --help, --complete and --help-man show them ----
deploy/man.sh "$bin" "$work/man" || wrong "deploy/man.sh failed"
verbs=$(hone --help | sed -n '/^verbs:/,/^$/s/^  \([a-z]*\) .*/\1/p')
[ "$(wc -l <<<"$verbs")" -gt 20 ] || wrong "hone --help lists few verbs: $verbs"
[ "$verbs" = "$(hone --complete '' | cut -f1 | grep -v '^-')" ] ||
    wrong "hone --complete: other verbs than hone --help"
check() { # PROGRAM [VERB]
    local help flags page=$work/man/$1${2:+-$2}.1 flag
    help=$("$@" --help)
    flags=$(sed -n '/^options:/,$s/^  \(--[a-z-]*\).*/\1/p' <<<"$help")
    [ -n "$flags" ] || wrong "$*: no options in its help"
    [ "$flags" = "$("$1" --complete ${2:+"$2"} -- | cut -f1 |
        grep -vxE -- "${2:---describe|--version}")" ] ||
        [ "$flags" = "$("$1" --complete ${2:+"$2"} -- | cut -f1)" ] ||
        wrong "$*: completes other flags than its help has"
    for flag in $flags; do
        grep -qF "\\fB${flag//-/\\-}" "$page" || grep -qF ".B ${flag//-/\\-}" "$page" ||
            wrong "$page: no $flag"
    done
    for flag in $(sed '/^$/,$d' <<<"$help" | grep -oE -- '--[a-z-]+'); do
        grep -qxF -- "$flag" <<<"$flags" || wrong "$*: its usage has $flag, its table not"
    done
}
for verb in $verbs; do
    check hone "$verb"
done
for verb in token cert backup verify; do
    check honed "$verb"
done
check honed
check hone-worker

# ---- man pages ----
said=$(man --warnings -E UTF-8 -l -Tutf8 -Z "$work"/man/*.1 2>&1 >/dev/null)
[ -z "$said" ] || wrong "man: $said"
if command -v mandoc >/dev/null; then
    said=$(mandoc -T lint -W warning "$work"/man/*.1) || wrong "mandoc: $said"
fi
man -E ascii -l "$work/man/honed-token.1" | grep -q 'revoke NAME|ID' ||
    wrong "honed-token.1 does not show its table"

# ---- shells ----
printf 'daemons:\n  lab: {address: "unix:/nowhere"}\n  loft: {address: "unix:/nowhere"}\n' \
    >"$work/config.yaml"
mkdir "$work/hone" && mv "$work/config.yaml" "$work/hone/" && mkdir "$work/models"
cases='hone wat|watch
hone data e|export
hone watch --aft|--after
hone ps --state que|queued
hone predict --model mod|models
hone show --to lo|loft
honed cert add me --role vi|viewer
hone-worker pred|predict
hone-worker --des|--describe'
bash -n deploy/completion/hone.bash || wrong "bash does not take it"
cat >"$work/terminal.py" <<'PY'
"""What a bash on a terminal makes of a line and a tab."""
import os, pty, select, sys, time
script, line = sys.argv[1:]
pid, fd = pty.fork()
if pid == 0:
    os.environ.update(TERM="dumb", INPUTRC="/dev/null")
    os.execvp("bash", ["bash", "--noprofile", "--rcfile", script, "-i"])
text, sent, end = b"", False, time.time() + 10
while time.time() < end:
    if select.select([fd], [], [], 0.2)[0]:
        text += os.read(fd, 4096)
    if not sent and b"$ " in text or b"# " in text:
        os.write(fd, (line + "\t<\n").encode())
        text, sent = b"", True
    elif sent and b"\n" in text:
        break
os.kill(pid, 9)
print(text.decode().split("\r\n")[0])
PY
try() { # LINE WANT: the three shells, side by side; says what is wrong
    local line=$1 want=$2 before=${1% *} source=$PWD/deploy/completion got
    cd "$work" || exit 1
    {
        got=$(python3 "$work/terminal.py" "$source/hone.bash" "$line")
        grep -qE -- "$before $want(/| )<" <<<"$got" || echo "bash: $line<TAB> gives: $got"
    } &
    if command -v fish >/dev/null; then
        got=$(fish --no-config -c "source $source/hone.fish; complete -C '$line'" | cut -f1)
        [ "${got%/}" = "$want" ] || echo "fish: $line<TAB> gives: $got"
    fi
    if command -v zsh >/dev/null; then
        got=$(zsh -f -c '
            _files() { print -l -- ${words[CURRENT]}*(N); }
            _describe() { print -l -- ${candidates%%:*}; }
            run() { . '"$source"'/_hone; }
            words=(${=1}) CURRENT=$#words; run' zsh "$line")
        grep -qx -- "$want" <<<"$got" || echo "zsh: $line<TAB> gives: $got"
    fi
    wait
}
said=$(while IFS='|' read -r line want; do
    try "$line" "$want" &
done <<<"$cases"
wait)
[ -z "$said" ] || wrong "$said"
exit $status
