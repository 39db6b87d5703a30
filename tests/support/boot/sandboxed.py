"""What jobs and deliveries may need of the machine, tried from within the unit's sandbox."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from support.boot.machine import Machine
from support.boot.network import network_of

ALL_THAT_A_COMMAND_MAY = """
import ctypes, os, resource, socket, subprocess, sys
import _cffi_backend, aiohttp._http_parser, cryptography.fernet, jiter, psycopg, pydantic_core, yaml._yaml
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
os.write(os.memfd_create("x"), b"x")
ctypes.CFUNCTYPE(ctypes.c_int)(int)()
socket.create_connection(("127.0.0.1", int(sys.argv[1]))).close()
child = subprocess.run(["sh", "-c", "ulimit -t"], start_new_session=True, capture_output=True)
names = [name for name in os.environ if "CREDENTIAL" in name]
print("all of it", child.stdout.decode().strip(), names)
"""
DELIVERY = """
  service: {{apprise: "json://127.0.0.1:{port}/by-apprise"}}
  hook: {{webhook: "http://127.0.0.1:{port}/by-webhook", secret: "systemd:hook"}}
  file: {{file: "by-file-{{job}}.md"}}
  command: {{command: "cat > /var/lib/promptd/by-command", shell: true}}
"""


@dataclass
class Receiver:
    """Who takes deliveries on a machine's loopback; `paths` are where they have come to."""

    port: int = 0
    paths: list[str] = field(default_factory=list)


@contextmanager
def receiving(machine: Machine) -> Iterator[Receiver]:
    """Take every POST while the block runs."""
    receiver = Receiver()

    class Taker(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            receiver.paths.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with network_of(machine.leader):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Taker)
    receiver.port = server.server_port
    thread = Thread(target=server.serve_forever, name="receiver", daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
