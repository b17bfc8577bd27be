"""HTTPS with a certificate of the user's own."""

import json
import shutil
import socket
import ssl
import subprocess
import urllib.request

import pytest

from llmctl.errors import UserError
from llmctl.explorer.server import ServerSettings, serve

from ..conftest import serve as start


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """The files of a certificate for 127.0.0.1 and of its key."""
    assert shutil.which("openssl"), "these tests need openssl: apt-get install openssl"
    folder = tmp_path_factory.mktemp("certificate")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=llmctl "
        f"-addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {cert}".split(),
        check=True,
        capture_output=True,
    )
    return cert, key


@pytest.mark.parametrize("broken", ["cert", "key", "swapped"])
def test_a_certificate_that_cannot_be_used_is_one_line_before_anything_listens(certificate, tmp_path, broken):
    cert, key = certificate
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate")
    files = {"cert": (nonsense, key), "key": (cert, nonsense), "swapped": (key, cert)}[broken]
    with pytest.raises(UserError, match="cannot be used") as raised:
        serve(ServerSettings(certfile=files[0], keyfile=files[1], port=0))
    assert "\n" not in str(raised.value)


def test_the_page_its_link_and_its_cookie_go_over_https(certificate, runs, tiny_model):
    cert, key = certificate
    process, address = start(
        runs, "--model", str(tiny_model), "--certfile", str(cert), "--keyfile", str(key),
        "--password", "a long password",
    )  # fmt: skip
    try:
        link = process.stdout.readline().split()[2]
        assert address.startswith("https://") and link.startswith(f"{address}/login?token=")
        context = ssl.create_default_context(cafile=str(cert))
        opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), urllib.request.HTTPCookieProcessor()
        )
        with opener.open(link, timeout=120) as answer:
            assert answer.status == 200 and answer.url == f"{address}/"
        with opener.open(f"{address}/api/about", timeout=120) as answer:
            assert "models" in json.load(answer)
        host, port = address.removeprefix("https://").split(":")
        with socket.create_connection((host, int(port)), timeout=120) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert not plain.recv(100).startswith(b"HTTP")
    finally:
        process.terminate()
        process.wait(120)
