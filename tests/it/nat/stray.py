"""Sends packets that belong to no connection: stray.py SOURCE TARGET. Both are addresses of one version of IP.

TCP segments with odd flags, and an ICMP error about a connection that nobody has.
"""

import ipaddress
import socket
import struct
import sys

source, target = (ipaddress.ip_address(text) for text in sys.argv[1:3])
six = source.version == 6
family = socket.AF_INET6 if six else socket.AF_INET


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def raw(protocol):
    sock = socket.socket(family, socket.SOCK_RAW, protocol)
    sock.bind((str(source), 0))
    return sock


tcp = raw(socket.IPPROTO_TCP)
# RST, RST+ACK, FIN+ACK, FIN+PSH+URG.
for flags in (0x04, 0x14, 0x11, 0x29):
    segment = struct.pack("!HHLLBBHHH", 40000 + flags, 443, 1000, 2000, 0x50, flags, 512, 0, 0)
    pseudo = source.packed + target.packed + (struct.pack("!LL", 20, 6) if six else struct.pack("!HH", 6, 20))
    segment = segment[:16] + struct.pack("!H", checksum(pseudo + segment)) + segment[18:]
    tcp.sendto(segment, (str(target), 0))

# "Port unreachable" for a datagram that the target never sent.
if six:
    quoted = struct.pack("!LHBB", 6 << 28, 8, 17, 64) + target.packed + source.packed + struct.pack("!HHHH", 7777, 7778, 8, 1)
    error = struct.pack("!BBHL", 1, 4, 0, 0) + quoted
    # The kernel fills in the checksum of ICMPv6 (RFC 3542, 3.1).
    raw(socket.IPPROTO_ICMPV6).sendto(error, (str(target), 0))
else:
    quoted = struct.pack("!BBHHHBBH", 0x45, 0, 28, 1, 0, 64, 17, 0) + target.packed + source.packed
    error = struct.pack("!BBHL", 3, 3, 0, 0) + quoted + struct.pack("!HHHH", 7777, 7778, 8, 0)
    error = error[:2] + struct.pack("!H", checksum(error)) + error[4:]
    raw(socket.IPPROTO_ICMP).sendto(error, (str(target), 0))

# A datagram that is of a connection, by which the test sees that all before it has passed.
plain = socket.socket(family, socket.SOCK_DGRAM)
plain.bind((str(source), 0))
plain.sendto(b"the end", (str(target), 9999))
