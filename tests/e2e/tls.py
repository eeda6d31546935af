"""Certificates made by the openssl command, and clients that speak TLS with a torpord."""
import http.client
import json
import os
import pathlib
import socket
import ssl
import subprocess

from harness import SECONDS_MAX, Torpord

NAMES = "subjectAltName=DNS:localhost,DNS:box.example.org,IP:127.0.0.1"


def make_certificate(folder, name="box", days=365, serial=1):
    """NAME.pem and NAME.key, which signs itself."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", str(days),
                    "-subj", "/CN=" + name, "-addext", NAMES, "-set_serial", str(serial),
                    "-keyout", folder / (name + ".key"), "-out", folder / (name + ".pem")],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class TlsTorpord(Torpord):
    """One whose TCP port speaks TLS."""

    def __init__(self, more="", days=365):
        super().__init__()
        self.root = pathlib.Path(self.folder)
        make_certificate(self.root, days=days)
        self.configure(more)

    def configure(self, more="", name="box"):
        (self.root / "config.toml").write_text(
            f'[http]\ntcp = "127.0.0.1:{self.port}"\ncertificate = "{name}.pem"\nkey = "{self.root}/{name}.key"\n{more}')

    def context(self, name="box"):
        return ssl.create_default_context(cafile=self.root / (name + ".pem"))

    def connection(self, tcp=False):
        if not tcp:
            return super().connection()
        return http.client.HTTPSConnection("localhost", self.port, timeout=SECONDS_MAX, context=self.context())

    def plain_socket(self):
        return socket.create_connection(("127.0.0.1", self.port), SECONDS_MAX)

    def tls_socket(self, context=None):
        return (context or self.context()).wrap_socket(self.plain_socket(), server_hostname="localhost")

    def serial(self):
        """Of the certificate that a new connection is shown."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with self.tls_socket(context) as connection:
            der = connection.getpeercert(binary_form=True)
        told = subprocess.run(["openssl", "x509", "-inform", "der", "-noout", "-serial"], input=der, check=True, stdout=subprocess.PIPE)
        return int(told.stdout.decode().strip().removeprefix("serial="), 16)

    def reload(self):
        status, _, answer = self.call("POST", "/api/reload")
        return status, answer["error"]["message"] + ": " + answer["error"].get("cause", "") if status != 200 else ""

    def curl(self, *arguments):
        done = subprocess.run(["curl", "-sS", "--noproxy", "*", "--cacert", self.root / "box.pem", *arguments], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS_MAX, env=dict(os.environ, HOME=self.folder))
        return done.stdout


def request(path, key, body=None, close=False):
    """The bytes of a request."""
    text = b"" if body is None else json.dumps(body).encode()
    method = "GET" if body is None else "POST"
    return (f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nx-api-key: {key}\r\n" + ("Connection: close\r\n" if close else "") +
            (f"Content-Length: {len(text)}\r\n" if body is not None else "") + "\r\n").encode() + text


def read_all(connection):
    got = b""
    try:
        while (piece := connection.recv(65536)):
            got += piece
    except (ConnectionError, ssl.SSLError):
        pass
    return got
