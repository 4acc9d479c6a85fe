"""Hostile input against a running honed, over every transport: what breaks the rules ends
its own connection (or gets an error) and nothing else. Standard library only.

    hostile.py --socket PATH --tcp PORT --http PORT --token FILE --ca FILE --pid HONED"""
import argparse, os, random, resource, socket, ssl, struct, sys, threading, time

p = argparse.ArgumentParser()
for name in ("--socket", "--token", "--ca"):
    p.add_argument(name)
for name in ("--tcp", "--http", "--pid"):
    p.add_argument(name, type=int)
args = p.parse_args()
token = open(args.token).read().strip().encode()
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
random.seed(7)

def frame(body, flags=0, length=None):
    return struct.pack(">BI", flags, len(body) if length is None else length) + body

def varint(x):
    out = b""
    while x > 127:
        out += bytes([x & 127 | 128])
        x >>= 7
    return out + bytes([x])

def field(number, value):  # a varint, or a block
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value

def hello(magic=0x484F4E45, version=1, secret=b""):
    return (b"\x0d" + struct.pack("<I", magic) + field(2, version) + field(3, 1)
            + (field(5, secret) if secret else b""))

def call(method, request=b""):
    return field(1, 1) + field(2, method) + field(3, request)

def unix():
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20)
    s.connect(args.socket)
    return s

def tcp(port):
    return socket.create_connection(("127.0.0.1", port), timeout=20)

def tls():
    context = ssl.create_default_context(cafile=args.ca)
    return context.wrap_socket(tcp(args.tcp), server_hostname="localhost")

def drain(s):
    """What comes until the other end closes."""
    out = b""
    try:
        while part := s.recv(65536):
            out += part
    except (ConnectionError, ssl.SSLError, ssl.SSLEOFError):
        pass
    s.close()
    return out

def receive(s):
    def exactly(n):
        out = b""
        while len(out) < n:
            part = s.recv(n - len(out))
            if not part:
                raise EOFError
            out += part
        return out
    flags, n = struct.unpack(">BI", exactly(5))
    assert flags == 0
    return exactly(n)

def check(what, ok, more=""):
    print(f"  {what}: {'ok' if ok else 'FAILED ' + str(more)}")
    if not ok:
        sys.exit(1)

def alive():
    s = unix()
    s.sendall(frame(hello()))
    receive(s)
    s.sendall(frame(call(b"Status")))
    reply = receive(s)
    s.close()
    return b"honed" in reply

def rss():
    for line in open(f"/proc/{args.pid}/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024

def descriptors():
    return len(os.listdir(f"/proc/{args.pid}/fd"))

before = descriptors()

for name, connect, secret in (("unix", unix, b""), ("tls", tls, token)):
    def closed_after(*parts):
        s = connect()
        try:
            for part in parts:
                s.sendall(part)
        except (ConnectionError, ssl.SSLError):
            pass
        return drain(s)
    good = frame(hello(secret=secret))
    check(f"{name}: garbage", all(closed_after(random.randbytes(random.randrange(5, 4000)))
                                  is not None or True for _ in range(20)) and alive())
    check(f"{name}: frame too long before the Hello", closed_after(frame(b"", length=4097)) == b"")
    welcome = closed_after(good, frame(b"", length=(1 << 20) + 1))
    check(f"{name}: frame too long after it", welcome[5:6] == b"\x08" and len(welcome) < 200, welcome)
    check(f"{name}: unknown flags", closed_after(frame(hello(), flags=1)) == b"")
    check(f"{name}: wrong magic", b"not Hone" in closed_after(frame(hello(magic=1))))
    check(f"{name}: wrong version", b"version 2" in closed_after(frame(hello(version=2))))
    s = connect()
    for byte in good:
        s.sendall(bytes([byte]))
    ok = len(receive(s)) > 2
    for byte in frame(call(b"List")):
        s.sendall(bytes([byte]))
    check(f"{name}: one byte at a time", ok and len(receive(s)) > 2)
    # 500,000 empty strings in one frame: 1 MB here, 8 MB of pointers there.
    s.sendall(frame(call(b"List", b"\x0a\x00" * 500000)))
    check(f"{name}: a bomb is refused, the connection lives", b"memory" in receive(s))
    s.sendall(frame(call(b"NoSuchMethod")))
    check(f"{name}: unknown method", b"unknown method" in receive(s))
    s.sendall(frame(call(b"GetJob", b"\x08")))
    check(f"{name}: malformed request", b"malformed" in receive(s))
    s.sendall(frame(call(b"GetJob", field(1, 1))) * 200)
    check(f"{name}: 200 calls at once", all(len(receive(s)) > 9 for _ in range(200)))
    s.close()
    for cut in range(1, len(good)):
        s = connect() if name == "unix" or cut % 16 == 1 else None
        if s:
            s.sendall(good[:cut])
            s.close()
    check(f"{name}: cut anywhere", alive())
if token:
    s = tls()
    s.sendall(frame(hello(secret=b"wrong")))
    check("tls: wrong token", b"unknown here" in drain(s))

def http(data, timeout=20):
    s = tcp(args.http)
    s.settimeout(timeout)
    try:
        s.sendall(data)
    except ConnectionError:
        pass
    return drain(s)

def request(path="/hone.v1.Hone/List", method="POST", headers=(), body=b"{}", length=None):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close",
             f"Authorization: Bearer {token.decode()}", "Content-Type: application/json"]
    if length is not False:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join(lines + list(headers)).encode("latin-1") + b"\r\n\r\n" + body

def status(data):
    out = http(data)
    return int(out[9:12]) if out[:9] == b"HTTP/1.1 " else 0

def refused(code):
    return code == 0 or 400 <= code < 500

check("http: a good request", status(request()) == 200)
check("http: chunks", status(request(headers=["Transfer-Encoding: chunked"], length=False,
                                     body=b"2\r\n{}\r\n0\r\n\r\n")) == 200)
check("http: huge header", refused(status(request(headers=["X: " + "y" * 100000]))))
check("http: many headers", refused(status(request(headers=[f"X{i}: y" for i in range(20000)]))))
check("http: long path", refused(status(request("/" + "x" * 100000))))
check("http: many arguments", refused(status(request(
    "/hone.v1.Hone/Watch?" + "&".join(f"a{i}=1" for i in range(40)), "GET", body=b""))))
check("http: large body", refused(status(request(body=b" " * (2 << 20)))))
check("http: JSON too deep", status(request(body=b'{"a":' + b"[" * 10000)) == 400)
check("http: not UTF-8", status(request(body=b'{"states": ["\xff"]}')) == 400)
for path in ("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc%2fpasswd",
             "/hone.v1.Hone/..%2fList", "/hone.v1.Hone/%2e/List", "/proc/self/environ",
             "/%00", "/hone.v1.Hone/List%00", "//hone.v1.Hone/List", "/hone.v1.Hone/List;x",
             "http://evil.example/hone.v1.Hone/List", "*"):
    check(f"http: {path}", refused(status(request(path))))
for name, data in (
        ("no Host", b"GET /metrics HTTP/1.1\r\n\r\n"), ("garbage", random.randbytes(3000) + b"\r\n\r\n"),
        ("HTTP/0.9", b"GET /metrics\r\n\r\n"), ("NUL", b"GET /me\0trics HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("negative length", request(length=-1)), ("absurd length", request(length=1 << 70)),
        ("two Hosts", request(headers=["Host: evil.example"])),
        ("frames", frame(hello(secret=token))), ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        ("two lengths", request(headers=["Content-Length: 7"]))):
    s = tcp(args.http)
    s.sendall(data)
    s.shutdown(socket.SHUT_WR)
    out = drain(s)
    check(f"http: {name}", not out or refused(int(out[9:12])), out)
check("alive", alive())

print(f"  {rss():.0f} MB, {descriptors()} descriptors")
# Many that never say who they are: they are ended, and meanwhile others are served.
began = time.monotonic()
silent = [tcp(args.tcp) for _ in range(1000)] + [tcp(args.http) for _ in range(1000)]
slow, ends = [tcp(args.http), tcp(args.tcp)], {}

def dribble(i):
    data = request(headers=["X: " + "y" * 200])
    try:
        for byte in data:
            slow[i].sendall(bytes([byte]))
            time.sleep(0.25)
            if time.monotonic() - began > 30:
                break
    except OSError:
        ends[i] = time.monotonic() - began

threads = [threading.Thread(target=dribble, args=(i,)) for i in range(2)]
for t in threads:
    t.start()
worst = 0.0
for _ in range(20):
    at = time.monotonic()
    ok = alive() and status(request()) == 200
    s = tls()
    s.sendall(frame(hello(secret=token)))
    ok = ok and len(receive(s)) > 2
    s.close()
    worst = max(worst, time.monotonic() - at)
    check("served beside 2,000 silent connections", ok) if not ok else None
check(f"served beside 2,000 silent connections, {worst * 1000:.0f} ms at most", worst < 2)
print(f"  {rss():.0f} MB, {descriptors()} descriptors")
check("memory stays below 60 MB", rss() < 60 or os.environ.get("HONE_SANITIZED"))
for s in silent:
    drain(s)
check(f"silent connections are ended, the last after {time.monotonic() - began:.0f} s",
      time.monotonic() - began < 20)
for t in threads:
    t.join()
check("slow ones too", len(ends) == 2 and max(ends.values()) < 20, ends)
until = time.monotonic() + 5
while descriptors() > before + 2 and time.monotonic() < until:
    time.sleep(0.1)
check(f"{before} descriptors before, {descriptors()} after", descriptors() <= before + 2)
check("alive", alive())
