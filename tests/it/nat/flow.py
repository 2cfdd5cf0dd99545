"""Sends a datagram every 20 ms from one port, for ever, and tells each change of what comes back: "1: nothing", "2: c1 saw …".

Arguments: where to send to, that port, the port to send from.
"""
import socket
import sys
import time

to, port, own = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
udp = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("", own))
udp.setblocking(False)
known, changes, since = None, 0, time.monotonic()
while True:
    try:
        udp.sendto(b"?", (to, port))
    except OSError:
        pass  # What an earlier one met.
    time.sleep(0.02)
    heard = None
    try:
        heard = udp.recvfrom(2048)[0].decode().strip()
        since = time.monotonic()
    except OSError:
        # Silence counts when it lasts: some commands in a row may take a moment.
        if time.monotonic() - since > 2:
            heard = "nothing"
    if heard is not None and heard != known:
        known, changes = heard, changes + 1
        print(f"{changes}: {heard}", flush=True)
