"""Certificates for servers of tests, of an authority that nobody else knows."""

import ssl
from pathlib import Path
from typing import NamedTuple

import trustme


class Certificate(NamedTuple):
    """`file`: the authority's own, for whoever is to believe the server."""

    file: str
    context: ssl.SSLContext


def certificate(folder: Path, host: str) -> Certificate:
    """Of a server that calls itself `host`."""
    authority = trustme.CA()
    file = folder / f"{host}.pem"
    authority.cert_pem.write_to_path(str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    return Certificate(str(file), context)
