#!/usr/bin/env bash
# Every verb asked badly: no daemon, no such job, stage or daemon, an argument too many or
# none, a job in the wrong state, no permission. Each time one line "hone: what is wrong",
# a mend, the exit status that docs promise, nothing on standard output, and nothing done.
. "$(dirname "$0")/common.sh"

asked() { # STATUS TEXT COMMAND...: it is refused in at most two lines
    local want=$1 text=$2 got=0
    shift 2
    timeout 30 "$@" >out 2>err </dev/null || got=$?
    [ "$got" = "$want" ] || fail "exit status $got, not $want: $*"
    [ ! -s out ] || fail "it printed something: $*"
    head -1 err | grep -q "^hone: .*$text" || fail "\"$text\" is not said: $*"
    [ "$(wc -l <err)" -le 2 ] || fail "more than two lines: $*"
    [ "$(wc -l <err)" = 1 ] || tail -1 err | grep -q '^  try: .' || fail "no mend: $*"
}
mends() { grep -qF -- "  try: $1" err || fail "the mend is not \"$1\""; }

about_jobs=(show watch logs metrics pause resume cancel checkpoint retry "rm --yes" "skip @ sft"
    "priority @ 3")
of_daemon=(ps top nodes)
line() { # VERB JOB: its words, @ being the job
    case $1 in *@*) echo "${1//@/$2}" ;; *) echo "$1 $2" ;; esac
}

python3 "$here/make_tiny.py" "$dir"
echo "no daemon: exit 4, and how to get one"
for verb in "${about_jobs[@]}"; do
    asked 4 "connect to unix:" "$hone" $(line "$verb" 1)
    mends "start one with honed"
done
for verb in "${of_daemon[@]}" "submit job.yaml"; do
    asked 4 "connect to unix:" "$hone" $verb
    asked 4 "connect to unix:/nowhere" "$hone" $verb --to unix:/nowhere
    asked 4 "connect to localhost, port 1" "$hone" $verb --to localhost:1
    asked 2 "wrong port" "$hone" $verb --to localhost:99999
    asked 2 "is no address, and no name" "$hone" $verb --to lab
    asked 2 "is no address, and no name" "$hone" $verb --to ""
done

start_honed
expect 0 "$hone" submit job.yaml --out one
expect 0 "$hone" watch 1
echo "no such job, or no number of one"
for verb in "${about_jobs[@]}"; do
    asked 2 "no job 77" "$hone" $(line "$verb" 77)
    mends "hone ps lists them"
    for bad in abc 0 -1 1.5 99999999999999999999; do
        case $bad in -*) continue ;; esac
        asked 2 "\"$bad\" is no number of a job" "$hone" $(line "$verb" $bad)
        mends "hone ps lists them"
    done
done
echo "the command line itself"
for verb in $("$hone" --complete "" | cut -f1 | grep -v '^-'); do
    asked 2 "hone $verb: unknown option --frobnicate" "$hone" $verb --frobnicate
    asked 2 "hone $verb: unknown option" "$hone" $verb --jsson
    expect 0 "$hone" $verb --help
    prints "usage: hone $verb"
    grep -q -- --json out || fail "hone $verb has no --json"
done
for verb in "${about_jobs[@]}"; do
    asked 2 "an argument is missing" "$hone" ${verb%% *}
    mends "hone ${verb%% *} "
    asked 2 "needs a value" "$hone" $(line "$verb" 1) --to
done
for verb in "${of_daemon[@]}" "show 1" "watch 1" "logs 1"; do
    asked 2 "one argument too many" "$hone" $verb x
done
asked 2 "an argument is missing" "$hone" submit
asked 2 "unknown verb" "$hone" wach
mends "did you mean hone watch?"
asked 2 "what is to be done" "$hone"
asked 2 "is not a whole number" "$hone" priority 1 high
asked 2 "is not within -100 and 100" "$hone" priority 1 101
asked 2 "is not within 1 and 1000" "$hone" ps --limit 0
asked 2 "no state is called" "$hone" ps --state finished
mends "queued, running"
asked 2 "nobody is there to answer" "$hone" rm 1
mends "--yes"

echo "not as things stand"
for verb in "skip 1 ppoo" "retry 1 ppoo" "metrics 1 --stage ppoo"; do
    asked 2 'job 1 has no stage "ppoo"' "$hone" $verb
    mends "did you mean ppo?"
done
asked 2 "it cannot be paused" "$hone" pause 1
asked 2 "job 1 is done" "$hone" resume 1
mends "hone retry 1"
asked 2 "is done already" "$hone" skip 1 sft
asked 2 "nofile.yaml" "$hone" submit nofile.yaml
asked 2 "holds another run" "$hone" submit job.yaml --out one
asked 2 "belongs to another honed" "$bin/honed"
mends "choose another folder with --state"
[ "$("$hone" ps --json | python3 -c 'import json, sys; print(len(json.load(sys.stdin)["jobs"]))')" = 1 ] ||
    fail "something was done"
kill_honed

echo "no permission, and a context that is wrong"
"$bin/honed" cert init 2>/dev/null >/dev/null
umask 077
mkdir -p config/hone
for role in viewer operator; do
    "$bin/honed" token add $role-1 --role $role >config/hone/$role 2>/dev/null
done
: >honed.log
start_honed --listen tcp:127.0.0.1:0
port=$(sed -n 's/.*listening on tcp:127.0.0.1://p' honed.log)
cp state/hone/tls/ca.crt config/hone/
echo hone_wrong >config/hone/wrong
cat >config/hone/config.yaml <<YAML
daemons:
  look: {address: "localhost:$port", authority: ca.crt, token_file: viewer}
  work: {address: "localhost:$port", authority: ca.crt, token_file: operator}
  gone: {address: "localhost:$port", authority: ca.crt, token_file: nofile}
  wrong: {address: "localhost:$port", authority: ca.crt, token_file: wrong}
  nobody: {address: "localhost:$port", authority: ca.crt}
  alien: {address: "localhost:$port", token_file: viewer}
  empty: {}
YAML
for verb in pause resume cancel checkpoint retry "rm --yes" "skip @ sft" "priority @ 3"; do
    asked 5 "viewer-1 may look, but not change anything" "$hone" $(line "$verb" 1) --to look
    mends "a credential of an operator"
    asked 5 "job 1 belongs to " "$hone" $(line "$verb" 1) --to work
    mends "ask them, or an admin"
done
asked 5 "viewer-1 may look" "$hone" submit job.yaml --to look
for verb in "${of_daemon[@]}" "show 1" "watch 1" "submit job.yaml"; do
    asked 5 "not authenticated" "$hone" $verb --to nobody
    asked 5 "" "$hone" $verb --to wrong
    asked 5 "not trusted" "$hone" $verb --to alien
    asked 2 "token: .*nofile" "$hone" $verb --to gone
    asked 2 "daemons.empty has no address" "$hone" $verb --to empty
    asked 2 "is no address, and no name" "$hone" $verb --to wrok
    mends "did you mean work?"
done
expect 0 "$hone" show 1 --to look
[ "$(state 1)" = done ] || fail "something was done"
echo "asked badly: all well"
