"""A web page on this machine with what the database counted.

    python page.py [PORT]        # while the application runs; the page is at http://127.0.0.1:PORT/

It is outside all enclaves: it asks the database's entry, as `broch call database.summary` does, and
whoever runs it can show any number. What is counted is what the button's module sealed.
"""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from broch.app.control import ControlClient
from broch.app.home import Home
from broch.errors import BrochError

APP = "button-led"
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="refresh" content="2">
<title>Button and LED</title>
<style>body {{ font: 1.2em/1.5 system-ui, sans-serif; margin: 15vh auto; width: 20em }}</style>
<h1>{presses}</h1>
<p>{text}</p>
<p>Emulated TEEs: fine to learn with, not to trust.</p>
</html>
"""


class Page(BaseHTTPRequestHandler):
    """Answers GET / and nothing else."""

    def do_GET(self) -> None:  # the name that the library wants
        if self.path != "/":
            self.send_error(404)
            return
        try:
            presses = int(ControlClient(Home.find(), APP).call("database", "summary")["presses"])
            status, text = 200, "presses were counted" if presses != 1 else "press was counted"
            page = PAGE.format(presses=presses, text=text)
        except BrochError:
            status, page = 503, PAGE.format(presses="-", text="the application does not run")
        data = page.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        """Be quiet."""


def main() -> None:
    """Serve until Ctrl-C."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    try:
        listening = ThreadingHTTPServer(("127.0.0.1", port), Page)
    except OSError as exc:
        sys.exit(f"error: port {port}: {exc.strerror}\nhint: python page.py 0 takes a free one")
    with listening as server:
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
