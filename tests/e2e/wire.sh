#!/usr/bin/env bash
# honed over the network with the real programs: certificates and tokens, JSON over HTTP
# with curl, a client in Python that knows docs/PROTOCOL.md alone (client.py), streams that
# go on where they were cut, hostile input (hostile.py), and what must not start.
. "$(dirname "$0")/common.sh"
need curl openssl
unset XDG_STATE_HOME XDG_CONFIG_HOME # all of it below HOME
python3 "$here/make_tiny.py" "$dir"

says() { grep -qF -- "$1" out err || fail "\"$1\" was not said"; }

await() { # a command that will succeed
    for _ in $(seq 500); do
        eval "$1" && return
        sleep 0.02
    done
    fail "it does not come: $1"
}

start() { # honed with these options; ports of what it listens on in $tcp $http $https
    "$bin/honed" --state "$dir/state" "$@" 2>>log &
    honed=$!
    for _ in $(seq 200); do
        [ "$(grep -c 'listening on' log)" -ge $# ] && break
        kill -0 $honed 2>/dev/null || fail "honed does not start"
        sleep 0.02
    done
    tcp=$(sed -n 's/.*listening on tcp:127.0.0.1://p' log | tail -1)
    http=$(sed -n 's/.*listening on http:127.0.0.1://p' log | tail -1)
    https=$(sed -n 's/.*listening on https:127.0.0.1://p' log | tail -1)
}
stop() {
    kill "$honed"
    wait "$honed" || fail "honed ended with status $?"
    honed=""
    : >log
}
call() { # URL-PATH JSON [curl options]: the HTTP status in $code, the body in out
    code=$(curl -s -m 20 -o out -w '%{http_code}' "http://127.0.0.1:$http$1" \
        -H 'Content-Type: application/json' -d "$2" "${@:3}")
}
status() { [ "$code" = "$1" ] || fail "HTTP status $code, not $1"; }

echo "what must not start"
expect 2 "$bin/honed" --state state --listen tcp:127.0.0.1:0
says "honed cert init"
expect 2 "$bin/honed" --state state --listen http:0.0.0.0:0
says "try: --listen https:0.0.0.0:0"
expect 0 "$bin/honed" cert init --state state
expect 2 "$bin/honed" cert init --state state
says "--renew"
expect 0 "$bin/honed" cert init --state state --renew --host gpu1.example.org
expect 2 "$bin/honed" --state state --listen tcp:0.0.0.0:0
says "honed token add"
expect 2 "$bin/honed" --state state --listen ftp:127.0.0.1:1
expect 2 "$bin/honed" token add "a b" --state state
expect 2 "$bin/honed" token add a --role king --state state
expect 2 "$bin/honed" token frobnicate --state state

echo "credentials"
umask 077
for role in viewer operator admin; do
    "$bin/honed" token add $role-1 --role $role --state state >$role.token 2>err
done
(mkdir carol && cd carol && "$bin/honed" cert add carol --role admin --state ../state >/dev/null)
[ "$(stat -c %a state/credentials state/tls/ca.key carol/carol.key | sort -u)" = 600 ] ||
    fail "a secret that others may read"
! grep -qF "$(cat viewer.token)" -r state || fail "a token is stored"
expect 0 "$bin/honed" token list --state state --json
python3 -c 'import json; l = json.load(open("out"))
assert [(x["name"], x["role"], x["kind"]) for x in l] == [("viewer-1", "viewer", "token"),
    ("operator-1", "operator", "token"), ("admin-1", "admin", "token"),
    ("carol", "admin", "certificate")], l' || fail "token list"
ca=(--cacert state/tls/ca.crt)
viewer=(-H "Authorization: Bearer $(cat viewer.token)")
operator=(-H "Authorization: Bearer $(cat operator.token)")

start --listen tcp:127.0.0.1:0 --listen http:127.0.0.1:0 --listen https:127.0.0.1:0

echo "curl: who may do what"
call /hone.v1.Hone/List '{}'
status 401
says "honed token add"
call /hone.v1.Hone/List '{}' "${viewer[@]}"
status 200
call /hone.v1.Hone/Submit '{"file": "/tmp/x"}' "${viewer[@]}"
status 403
call /hone.v1.Hone/GetJob '{"idd": 1}' "${viewer[@]}"
status 400
says 'did you mean \"id\"?'
call /hone.v1.Hone/List '{}' "${viewer[@]}" -H 'Host: evil.example'
status 403
call /hone.v1.Hone/List '{}' "${viewer[@]}" -H 'Origin: http://evil.example'
status 403
call /hone.v1.Hone/List '{}' "${viewer[@]}" -H 'Content-Type: text/plain'
status 400 # twice the same header
code=$(curl -s -o out -w '%{http_code}' "http://127.0.0.1:$http/hone.v1.Hone/List" \
    -d '{}' "${viewer[@]}")
status 415
code=$(curl -s --path-as-is -o out -w '%{http_code}' "${viewer[@]}" \
    "http://127.0.0.1:$http/../../etc/passwd")
status 404
code=$(curl -s -o out -w '%{http_code}' "http://127.0.0.1:$http/metrics" "${viewer[@]}")
status 200
says 'hone_jobs{state="queued"} 0'

echo "curl through TLS, with a token or a certificate; nothing below TLS 1.3"
code=$(curl -s -o out -w '%{http_code}' "${ca[@]}" "https://localhost:$https/metrics" "${viewer[@]}")
status 200
code=$(curl -s -o out -w '%{http_code}' "${ca[@]}" --cert carol/carol.crt --key carol/carol.key \
    --json '{}' "https://127.0.0.1:$https/hone.v1.Hone/Status")
status 200
expect 60 curl -s "https://localhost:$https/metrics" "${viewer[@]}" # an unknown authority
expect 35 curl -s "${ca[@]}" --tls-max 1.2 "https://localhost:$https/metrics"

echo "a job by curl; its stream goes on where it was cut"
call /hone.v1.Hone/Submit "{\"file\": \"$dir/job.yaml\", \"set\": [\"stages.sft.epoch=1\"]}" \
    "${operator[@]}"
status 422
python3 -c 'import json; e = json.load(open("out"))["error"]
assert (e["status"], e["code"], e["field"]) == (2, "invalid_request", "file"), e
assert "epoch" in e["message"] and e["mend"] == "did you mean \"epochs\"?", e
assert e["problems"][0]["mend"] == e["mend"] and e["problems"][0]["where"], e' || fail "the error"
call /hone.v1.Hone/Submit "{\"file\": \"$dir/job.yaml\", \"requestId\": \"once\"}" "${operator[@]}"
status 200
cp out submitted
call /hone.v1.Hone/Submit "{\"file\": \"$dir/job.yaml\", \"request_id\": \"once\"}" "${operator[@]}"
status 200
watch="https://127.0.0.1:$https/hone.v1.Hone/Watch"
expect 0 curl -sN -m 60 "${ca[@]}" "${viewer[@]}" "$watch?id=1&after=0"
cp out whole
python3 - <<'PY' || fail "the stream"
import json
job = json.load(open("submitted"))["job"]
assert job["id"] == 1 and job["owner"] == "operator-1", job
events = [e for e in open("whole").read().split("\n\n") if e]
assert events[-1] == "event: end\ndata: {}", events[-1]
seqs = [json.loads(e.split("data: ", 1)[1])["seq"] for e in events[:-1] if e.startswith("id: ")]
assert seqs == list(range(1, len(seqs) + 1)), seqs
last = json.loads(events[-2].split("data: ", 1)[1])
assert last["job_state"]["state"] == "done", last
open("half", "w").write(str(len(seqs) // 2))
PY
expect 0 curl -sN -m 60 "${ca[@]}" "${viewer[@]}" -H "Last-Event-ID: $(cat half)" --json '{"id": 1}' "$watch"
[ "$(head -1 out)" = "id: $(($(cat half) + 1))" ] || fail "it does not go on"
expect 0 curl -sN -m 60 "${ca[@]}" "${viewer[@]}" "https://127.0.0.1:$https/hone.v1.Hone/Logs?id=1&offset=0"
says "sft: step"

echo "the examples of docs/PROTOCOL.md, as they are printed there"
export HONE="http://127.0.0.1:$http" TOKEN HONES="https://localhost:$https" CA=state/tls/ca.crt
TOKEN=$(cat operator.token)
cp carol/carol.* .
grep '^curl ' "$here/../../docs/PROTOCOL.md" >examples
[ "$(wc -l <examples)" -ge 8 ] || fail "few examples"
said=0
while IFS= read -r example; do
    expect 0 bash -c "$example"
    case $example in
    *Submit | *GetJob | *List | *Nodes) python3 -c '
import json; r = json.load(open("out")); assert "error" not in r and r, r' || fail "$example" ;;
    *Last-Event-ID*) [ "$(head -1 out)" = "id: 6" ] || fail "$example" ;;
    *Watch*) grep -q '"state": "done"' out || fail "$example" ;;
    *Logs*) grep -q 'ppo: step' out || fail "$example" ;;
    *metrics) grep -q '^hone_jobs{' out || fail "$example" ;;
    *) fail "who knows what it should say? $example" ;;
    esac
    said=$((said + 1))
done <examples
[ "$said" = "$(wc -l <examples)" ] || fail "not all examples were run"

echo "a client in Python"
python3 - "$here/client.py" "$here/../../docs/PROTOCOL.md" <<'PY' || fail "client.py"
"""It is short, imports nothing else, and says nothing to honed that the page does not say."""
import ast, re, sys
source, page = (open(f).read() for f in sys.argv[1:])
assert source.count("\n") <= 60, source.count("\n")
tree, said = ast.parse(source), set()
for node in ast.walk(tree):
    if isinstance(node, ast.Import):
        said |= {"module " + a.name for a in node.names}
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        if node.value.id in ("wire_pb2", "reply", "error"):
            said.add(node.attr)
    elif isinstance(node, ast.Call):
        f = ast.unparse(node.func)
        if f.startswith("wire_pb2."):
            said |= {k.arg for k in node.keywords}
            said |= {k.value.value for k in node.keywords
                     if isinstance(k.value, ast.Constant) and isinstance(k.value.value, int)}
allowed = {"module " + m for m in
           ("argparse", "socket", "ssl", "struct", "sys", "hone_pb2", "wire_pb2")}
said -= allowed | {"HasField"}
missing = {s for s in said if not re.search(
    r"\b%s\b" % (s if isinstance(s, str) else "(%d|0x%x)" % (s, s)), page)}
assert not missing and len(said) > 15, (missing, said)
PY
for python in python3 /usr/bin/python3; do
    $python -c 'import google.protobuf' 2>/dev/null && break
    python=""
done
protos=(hone wire worker)
if [ -z "$python" ] || ! command -v protoc >/dev/null; then
    echo "  left out: python3-protobuf and protobuf-compiler are not both installed"
else
    mkdir classes
    protoc --proto_path="$here/../../proto" --python_out=classes "${protos[@]/%/.proto}"
    export PYTHONPATH=$dir/classes
    client() { "$python" "$here/client.py" "$@"; }
    tls=(--ca state/tls/ca.crt)
    expect 0 client "unix:$dir/state/socket" GetJob id=1
    says 'state: "done"'
    expect 5 client "127.0.0.1:$tcp" List "${tls[@]}"
    expect 0 client "localhost:$tcp" List "${tls[@]}" --token viewer.token
    says 'owner: "operator-1"'
    expect 5 client "127.0.0.1:$tcp" Cancel id=1 "${tls[@]}" --token viewer.token
    expect 2 client "127.0.0.1:$tcp" GetJob id=99 "${tls[@]}" --token viewer.token
    expect 0 client "127.0.0.1:$tcp" Status "${tls[@]}" --cert carol/carol.crt --key carol/carol.key
    says "epoch: "
    expect 0 client "127.0.0.1:$tcp" Watch id=1 "after=$(cat half)" "${tls[@]}" --token viewer.token
    [ "$(grep -c '^seq: ' out)" = "$(($(grep -c '^id: ' whole) - $(cat half)))" ] ||
        fail "the client misses events"
fi

echo "hone from another place: a context with an authority and a token, or a certificate"
mkdir -p .config/hone
cp state/tls/ca.crt .config/hone/lab.crt
cp viewer.token carol/carol.crt carol/carol.key .config/hone/
cat >.config/hone/config.yaml <<YAML
default: lab
daemons:
  lab: {address: "localhost:$tcp", authority: lab.crt, token_file: viewer.token}
  boss: {address: "127.0.0.1:$tcp", authority: lab.crt, certificate: carol.crt, key: carol.key}
  wrong: {address: "127.0.0.1:$tcp", token_file: viewer.token}
YAML
hone=$bin/hone
expect 0 "$hone" ps
says "operator-1"
expect 0 "$hone" show 1 --to boss --json
expect 0 "$hone" watch 1 --after 0 --json
[ "$(grep -c . out)" -ge "$(grep -c '^id: ' whole)" ] || fail "hone watch misses events"
expect 5 "$hone" cancel 1 # a viewer may not
says "viewer-1 may look"
expect 5 "$hone" ps --to wrong # an authority that it does not know
says "not trusted"
expect 4 "$hone" ps --to 127.0.0.1:1
expect 0 env HONE_AUTHORITY=state/tls/ca.crt "HONE_TOKEN=$(cat admin.token)" \
    "$hone" show 1 --to "tcp:127.0.0.1:$tcp"
chmod 644 .config/hone/viewer.token
expect 2 "$hone" ps
says "chmod 600"
chmod 600 .config/hone/viewer.token

echo "hostile input"
python3 "$here/hostile.py" --socket state/socket --tcp "$tcp" --http "$http" \
    --token viewer.token --ca state/tls/ca.crt --pid "$honed" >hostile 2>&1 ||
    { cat hostile; fail "hostile input"; }
cat hostile
call /hone.v1.Hone/List '{}' "${viewer[@]}"
status 200

echo "a renewed certificate is shown without a restart, with the names of the old one"
serial() { # of what honed shows for a host
    : | openssl s_client -connect "127.0.0.1:$https" -CAfile state/tls/ca.crt \
        -verify_hostname "$1" -verify_return_error 2>err | openssl x509 -noout -serial
}
old=$(serial gpu1.example.org) && [ -n "$old" ] || fail "gpu1.example.org is not in it"
expect 0 "$bin/honed" cert init --state state --renew --host gpu2.example.org
new=$(serial gpu1.example.org)
[ -n "$new" ] && [ "$new" != "$old" ] || fail "the old certificate is shown: $old $new"
serial gpu2.example.org >/dev/null || fail "--host is not in it"
expect 0 "$hone" ps --to boss
cp state/tls/server.key good.key
openssl ecparam -name prime256v1 -genkey -noout -out state/tls/server.key
kill -HUP "$honed"
await 'grep -q "the old certificate stays" log'
[ "$(serial gpu1.example.org)" = "$new" ] || fail "half a pair was taken"
cp good.key state/tls/server.key
kill -HUP "$honed"
await '[ "$(grep -c "certificate was read anew" log)" = 2 ]'
"$bin/honed" token add viewer-2 --state state >viewer-2.token 2>err
call /hone.v1.Hone/List '{}' -H "Authorization: Bearer $(cat viewer-2.token)"
status 200

echo "revoked: refused at once, without a restart"
expect 0 "$bin/honed" token revoke viewer-1 --state state
call /hone.v1.Hone/List '{}' "${viewer[@]}"
status 401
! grep -qF "$(cat operator.token)" log || fail "a token is in the log"
stop

echo "jobs stay in the folders that --root allows"
mkdir inside outside
cp job.yaml inside/job.yaml
cp -r model *.jsonl inside/
cp inside/*.jsonl outside/
ln -s "$dir/outside" inside/link
ln -s "$dir/job.yaml" inside/linked.yaml
start --listen http:127.0.0.1:0 --root "$dir/inside"
submit() { call /hone.v1.Hone/Submit "{\"file\": \"$1\"${2:+, $2}}" "${operator[@]}"; }
for file in "$dir/job.yaml" /etc/passwd "$dir/inside/../job.yaml" "$dir/inside/linked.yaml" \
    "$dir/inside/none/../../job.yaml"; do
    submit "$file"
    status 403
    says "outside the folders"
done
submit "$dir/inside/job.yaml" "\"out\": \"$dir/outside/run\""
status 403
submit "$dir/inside/job.yaml" "\"out\": \"$dir/inside/link/run\""
status 403
[ ! -e outside/run ] || fail "a folder was made outside"
if ! HONE_CONFINE=$dir/inside "$bin/hone-worker" --version >/dev/null 2>err; then
    says "cannot confine"
    submit "$dir/inside/job.yaml"
    [ "$code" != 200 ] || fail "a job runs that nothing holds"
    echo "  left out: this kernel has no Landlock"
else
    for data in "$dir/outside/train.jsonl" "$dir/inside/link/train.jsonl" /etc/shadow \
        "$dir/state/credentials"; do
        submit "$dir/inside/job.yaml" "\"set\": [\"data.train=$data\", \"data.format={kind: jsonl}\"]"
        status 422
        says "Permission denied"
    done
    submit "$dir/inside/job.yaml"
    status 200
    job=$(python3 -c 'import json; print(json.load(open("out"))["job"]["id"])')
    expect 0 curl -sN -m 60 "${operator[@]}" "http://127.0.0.1:$http/hone.v1.Hone/Watch?id=$job"
    grep -q '"state": "done"' out || fail "a job inside does not end well"
    [ -d inside/runs/tiny-1/ppo/final ] || fail "no result"
fi
stop

echo "the certificate that clients see"
openssl verify -CAfile state/tls/ca.crt -purpose sslserver state/tls/server.crt >/dev/null ||
    fail "the server's certificate"
openssl verify -CAfile state/tls/ca.crt -purpose sslclient carol/carol.crt >/dev/null ||
    fail "the client's certificate"
echo "wire: all well"
