#!/usr/bin/env bash
# The page of honed: served to anybody, with a policy that lets it load nothing from
# elsewhere; what it shows needs a token. Then a real browser: log in, look at a job that
# trains, pause and resume it.
. "$(dirname "$0")/common.sh"
need curl
python3 "$here/make_tiny.py" "$dir"

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
url=http://127.0.0.1:$port
start_honed --listen "http:127.0.0.1:$port"

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

need chromium chromedriver
token=$("$bin/honed" token add page --role admin 2>/dev/null | tail -1)
"$hone" submit job.yaml --out "$dir/<img src=x onerror=window.injected=1>" \
    --set resources.precision=f32 --set stages.sft.epochs=9000 >/dev/null
timeout 200 python3 "$here/page.py" "$url/" "$token" 1 || fail "the page"
