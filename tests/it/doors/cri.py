"""A client of the CRI, as the kubelet is one (kubernetes/cri-api, pkg/apis/runtime/v1/api.proto): one call a run.

cri.py SOCKET network                        prints the condition NetworkReady
cri.py SOCKET run-pod NAME UID [HOST:PORT]   prints the pod's id
cri.py SOCKET address POD                    prints the pod's addresses
cri.py SOCKET start POD NAME IMAGE COMMAND…  makes and starts a container, prints its id
cri.py SOCKET exec CONTAINER COMMAND…        prints what the command prints
cri.py SOCKET stop POD, remove POD
"""

import sys

import grpc


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out + bytes([number]))


def message(**fields):
    """Encodes a message: `f3=value` is field 3. A list is a field that repeats."""
    out = b""
    for name, value in fields.items():
        number = int(name[1:])
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int):
                out += varint(number << 3) + varint(one)
            else:
                one = one.encode() if isinstance(one, str) else one
                out += varint(number << 3 | 2) + varint(len(one)) + one
    return out


def fields(data):
    """Decodes a message into a list of (number, value)."""
    found, at = [], 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = number()
        if key & 7 == 0:
            found.append((key >> 3, number()))
            continue
        assert key & 7 == 2, f"a field of wire type {key & 7}"
        size = number()
        found.append((key >> 3, data[at : at + size]))
        at += size
    return found


def field(data, number, default=b""):
    return next((value for key, value in fields(data) if key == number), default)


def call(method, request):
    stub = CHANNEL.unary_unary(f"/runtime.v1.RuntimeService/{method}")
    try:
        return stub(request, timeout=60)
    except grpc.RpcError as error:
        sys.exit(f"{method}: {error.details()}")


def pod_config(name, uid, port):
    more = {}
    if port:
        host, inside = map(int, port.split(":"))
        more["f5"] = message(f1=0, f2=inside, f3=host)
    metadata = message(f1=name, f2=uid, f3="default", f4=0)
    return message(f1=metadata, f2=name, f3="/tmp", f8=b"", **more)


CHANNEL = grpc.insecure_channel("unix:" + sys.argv[1])
verb, words = sys.argv[2], sys.argv[3:]
if verb == "network":
    # The conditions of the runtime: type, status, reason, message.
    for key, condition in fields(field(call("Status", b""), 1)):
        if field(condition, 1) == b"NetworkReady":
            print(bool(field(condition, 2, 0)), field(condition, 4).decode())
elif verb == "run-pod":
    config = pod_config(words[0], words[1], words[2] if len(words) > 2 else "")
    print(field(call("RunPodSandbox", message(f1=config)), 1).decode())
elif verb == "address":
    network = field(field(call("PodSandboxStatus", message(f1=words[0])), 1), 5)
    print(field(network, 1).decode(), *(field(more, 1).decode() for key, more in fields(network) if key == 2))
elif verb == "start":
    pod, name, image, *command = words
    config = message(f1=message(f1=name, f2=0), f2=message(f1=image), f3=command, f15=b"")
    request = message(f1=pod, f2=config, f3=pod_config(name, "of a container", ""))
    container = field(call("CreateContainer", request), 1).decode()
    call("StartContainer", message(f1=container))
    print(container)
elif verb == "exec":
    answer = call("ExecSync", message(f1=words[0], f2=words[1:], f3=30))
    print(field(answer, 1).decode(), end="")
    sys.exit(field(answer, 3, 0))
elif verb in ("stop", "remove"):
    call(verb.capitalize() + "PodSandbox", message(f1=words[0]))
else:
    sys.exit(f"{verb}: no such call")
