"""A client of honed from docs/PROTOCOL.md: protobuf's own package and sockets alone.

    client.py unix:PATH | HOST:PORT  METHOD  [FIELD=VALUE]...  [--ca FILE] [--token FILE]
                                                               [--cert FILE --key FILE]
Prints every message of the reply; exits with Error.status. The classes come from
`protoc --proto_path=proto --python_out=DIR hone.proto wire.proto` (DIR in PYTHONPATH)."""
import argparse, socket, ssl, struct, sys

import hone_pb2, wire_pb2
from google.protobuf import text_format

p = argparse.ArgumentParser()
for name, count in (("address", None), ("method", None), ("fields", "*"), ("--ca", None),
                    ("--token", None), ("--cert", None), ("--key", None)):
    p.add_argument(name, nargs=count)
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
    s = socket.create_connection((host.strip("[]"), int(port)))
    return context.wrap_socket(s, server_hostname=host.strip("[]"))

def send(message): # a frame: flags, length, body
    body = message.SerializeToString()
    stream.write(struct.pack(">BI", 0, len(body)) + body)
    stream.flush()

def receive(kind):
    head = stream.read(5) or sys.exit("honed closed the connection")
    return kind.FromString(stream.read(struct.unpack(">BI", head)[1]))

def check(error):
    if error.status:
        print(error.message, error.mend, sep="\n  try: ", file=sys.stderr)
        sys.exit(error.status)

stream = dial(args.address).makefile("rwb")
send(wire_pb2.Hello(magic=0x484F4E45, version=1, role=wire_pb2.CLIENT, program="client.py",
                    token=open(args.token).read().strip() if args.token else None))
check(receive(wire_pb2.Welcome).refused)
method = hone_pb2.DESCRIPTOR.services_by_name["Hone"].methods_by_name[args.method]
request = getattr(hone_pb2, method.input_type.name)()
text_format.Parse("\n".join(f.replace("=", ": ", 1) for f in args.fields), request)
send(wire_pb2.Call(id=1, method=args.method, request=request.SerializeToString()))
more = True
while more:
    reply = receive(wire_pb2.Reply)
    check(reply.error)
    if reply.HasField("body"):
        print(getattr(hone_pb2, method.output_type.name).FromString(reply.body), flush=True)
    more = reply.more
