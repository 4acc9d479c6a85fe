# Debian packages Hone needs, and how to get those that are missing. Sourced by
# deploy/quickstart.sh and tests/run.sh; no side effects until a function is called.
# Invariant: nothing is installed when everything is there.

packages_build=(build-essential cmake ninja-build pkg-config libuv1-dev libprotobuf-c-dev
    protobuf-c-compiler libsqlite3-dev libyaml-dev libjansson-dev libutf8proc-dev
    libxxhash-dev libmd-dev zlib1g-dev libzstd-dev libopenmpi-dev openmpi-bin libssl-dev
    libmicrohttpd-dev)
packages_fetch=(python3 python3-pip ca-certificates)
packages_test=(libcmocka-dev clang-format-14 python3 procps curl openssl python3-protobuf
    protobuf-compiler valgrind iproute2 util-linux man-db mandoc zsh fish slurm-wlm
    munge)

packages_browser=(chromium chromium-driver) # for the test of honed's page

# packages_need NAME...: install what is missing, or say what to install and return 1.
packages_need() {
    local missing=() p sudo=""
    for p in "$@"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] ||
            missing+=("$p")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    if ! command -v apt-get >/dev/null 2>&1; then
        if command -v dpkg-query >/dev/null 2>&1 || [ -n "${HONE_SKIP_PACKAGES:-}" ]; then
            return 0
        fi
        echo "hone: no apt-get here; install these libraries with their headers:" >&2
        echo "  libuv protobuf-c sqlite3 libyaml jansson utf8proc xxhash libmd" >&2
        echo "  zlib zstd openssl libmicrohttpd" >&2
        echo "  a C compiler, cmake, ninja, pkg-config" >&2
        echo "  (Debian's names: ${missing[*]})" >&2
        echo "  then run again with HONE_SKIP_PACKAGES=1" >&2
        return 1
    fi
    [ -n "${HONE_SKIP_PACKAGES:-}" ] && return 0
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null 2>&1; then
            echo "hone: these packages are missing and there is no sudo: ${missing[*]}" >&2
            echo "  try: as root, apt-get install ${missing[*]}" >&2
            return 1
        fi
        sudo=sudo
    fi
    echo "installing: ${missing[*]}"
    if ! $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q \
        --no-install-recommends "${missing[@]}" >/tmp/hone-apt.$$ 2>&1; then
        $sudo apt-get update -q >/dev/null
        $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q \
            --no-install-recommends "${missing[@]}" >/tmp/hone-apt.$$ 2>&1 || {
            tail -20 /tmp/hone-apt.$$ >&2
            rm -f /tmp/hone-apt.$$
            return 1
        }
    fi
    rm -f /tmp/hone-apt.$$
}
