"""Answers each TCP connection (as an HTTP server) and each datagram with its own name and its client's address.

Arguments: its name, then what it listens on: PORT, PORT/udp, ADDRESS,PORT or ADDRESS,PORT/udp.
"""
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = sys.argv[1]


def answer(client):
    return f"{NAME} saw {client[0].removeprefix('::ffff:')}\n".encode()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = answer(self.client_address)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    allow_reuse_address = True
    # A client may come before its last one was let go.
    request_queue_size = 128
    daemon_threads = True

    def server_bind(self):
        # In place of the parent's, which looks for the name of the host.
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, self.server_address[0] != "::")
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = NAME, self.server_address[1]


def datagrams(udp):
    while True:
        try:
            _, client = udp.recvfrom(2048)
            udp.sendto(answer(client), client)
        except OSError:
            pass  # What an earlier answer met.


for where in sys.argv[2:]:
    place, _, proto = where.partition("/")
    address, _, port = place.rpartition(",")
    address = address or "::"
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    if proto == "udp":
        udp = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address != "::")
        udp.bind((address, int(port)))
        work = lambda udp=udp: datagrams(udp)
    else:
        work = type("Of", (Server,), {"address_family": family})((address, int(port)), Handler).serve_forever
    threading.Thread(target=work, daemon=True).start()
print("ready", flush=True)
threading.Event().wait()
