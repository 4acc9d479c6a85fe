#!/usr/bin/env bash
# The page of honed: served to anybody, with a policy that lets it load nothing from
# elsewhere; what it shows needs a token. Then a real browser: log in, look at a job that
# trains, pause and resume it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${HONE_BIN:?the folder of hone, honed and hone-worker}
for program in hone honed hone-worker; do
    [ -x "$bin/$program" ] || { echo "skipped: $bin/$program is not built"; exit 77; }
done
dir=$(mktemp -d /tmp/hone-e2e-XXXXXX)
honed=
tidy() {
    [ -z "$honed" ] || { kill -KILL "$honed" && wait "$honed"; } 2>/dev/null || true
    pkill -KILL -f "hone-worker $dir/" || true
    rm -rf "$dir"
}
trap tidy EXIT
export TMPDIR=$dir XDG_STATE_HOME=$dir/state XDG_CONFIG_HOME=$dir/config
unset XDG_RUNTIME_DIR HONE_TO
python3 "$here/make_tiny.py" "$dir"
cd "$dir"
fail() { echo "FAILED: $*"; tail -5 honed.log; exit 1; }

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
url=http://127.0.0.1:$port
"$bin/honed" --listen "unix:$dir/s" --listen "http:127.0.0.1:$port" >honed.log 2>&1 &
honed=$!
export HONE_TO=unix:$dir/s
for _ in $(seq 500); do "$bin/hone" ps >/dev/null 2>&1 && break; sleep 0.02; done

for path in / /app.js /style.css; do
    curl -sfi "$url$path" >reply || fail "GET $path"
    grep -qi "^content-security-policy: default-src 'none'; script-src 'self'" reply ||
        fail "GET $path: no policy"
done
code() { curl -s -o reply -w '%{http_code}' --path-as-is "$@"; }
[ "$(code "$url/../app.js")" = 404 ] || fail "a path with .."
[ "$(code "$url/index.html")" = 404 ] || fail "a file that is not served"
[ "$(code -X POST "$url/")" = 405 ] || fail "POST /"
[ "$(code -H 'Host: evil.example' "$url/")" = 403 ] || fail "another Host"
[ "$(code --json '{}' "$url/hone.v1.Hone/List")" = 401 ] || fail "a list without a token"

command -v chromium >/dev/null && command -v chromedriver >/dev/null ||
    { echo "skipped: chromium and chromium-driver are not installed"; exit 77; }
token=$("$bin/honed" token add page --role admin 2>/dev/null | tail -1)
"$bin/hone" submit job.yaml --out "$dir/<img src=x onerror=window.injected=1>" \
    --set resources.precision=f32 --set stages.sft.epochs=9000 >/dev/null
timeout 200 python3 "$here/page.py" "$url/" "$token" 1 || fail "the page"
