"""A client of honed from docs/PROTOCOL.md alone: protobuf's own package and sockets.

    client.py unix:PATH | HOST:PORT  METHOD  [FIELD=VALUE]...   [--ca FILE] [--token FILE]
                                                  [--cert FILE --key FILE] [--max N]

Prints every message of the reply in protobuf's text format; exits with Error.status. The
classes come from `protoc --proto_path=proto --python_out=DIR` (DIR in PYTHONPATH)."""
import argparse, socket, ssl, struct, sys

import hone_pb2, wire_pb2
from google.protobuf import text_format

p = argparse.ArgumentParser()
for name in ("address", "method"):
    p.add_argument(name)
p.add_argument("fields", nargs="*")
for name in ("--ca", "--token", "--cert", "--key"):
    p.add_argument(name)
p.add_argument("--max", type=int, default=1 << 30)
args = p.parse_args()

def dial(address):
    if address.startswith("unix:"):
        s = socket.socket(socket.AF_UNIX)
        s.connect(address[5:])
        return s
    host, port = address.rsplit(":", 1)
    context = ssl.create_default_context(cafile=args.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if args.cert:
        context.load_cert_chain(args.cert, args.key)
    s = socket.create_connection((host.strip("[]"), int(port)), timeout=30)
    return context.wrap_socket(s, server_hostname=host.strip("[]"))

def send(s, message):
    body = message.SerializeToString()
    s.sendall(struct.pack(">BI", 0, len(body)) + body)

def receive(s, kind):
    def exactly(n):
        out = b""
        while len(out) < n:
            part = s.recv(n - len(out))
            if not part:
                sys.exit("honed closed the connection")
            out += part
        return out
    flags, n = struct.unpack(">BI", exactly(5))
    return kind.FromString(exactly(n))

def fail(error):
    print(f"{error.message}\n  try: {error.mend}", file=sys.stderr)
    sys.exit(error.status)

token = open(args.token).read().strip() if args.token else None
s = dial(args.address)
send(s, wire_pb2.Hello(magic=0x484F4E45, version=1, role=wire_pb2.CLIENT,
                       program="client.py", token=token))
welcome = receive(s, wire_pb2.Welcome)
if welcome.HasField("refused"):
    fail(welcome.refused)
method = hone_pb2.DESCRIPTOR.services_by_name["Hone"].methods_by_name[args.method]
message = lambda d: getattr(hone_pb2, d.name)
request = text_format.Parse("\n".join(f.replace("=", ": ", 1) for f in args.fields),
                            message(method.input_type)())
send(s, wire_pb2.Call(id=1, method=args.method, request=request.SerializeToString()))
for _ in range(args.max):
    reply = receive(s, wire_pb2.Reply)
    if reply.HasField("error"):
        fail(reply.error)
    if reply.HasField("body"):
        print(message(method.output_type).FromString(reply.body), flush=True)
    if not reply.more:
        break
