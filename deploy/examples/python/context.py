"""Where the control plane is, and with which token: from the installation's context.toml, or named one by one."""

import argparse
import pathlib
import tomllib
import urllib.parse

import grpc

OPTIONS = [
    # The only way to notice that the other side vanished without a word.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # After a restart of the control plane, do not wait for a minute to find it again.
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # An answer with contacts has up to 4 MiB and a little around it.
    ("grpc.max_receive_message_length", 8 * 1024 * 1024),
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=pathlib.Path, help="data folder of an installation on this machine")
    parser.add_argument("--endpoint", help="https://host:port of a control plane elsewhere")
    parser.add_argument("--token-file", type=pathlib.Path, help="file that holds the token")
    parser.add_argument("--ca-file", type=pathlib.Path, help="PEM file of the CA to trust in place of the system's")
    parser.add_argument("--insecure", action="store_true", help="plaintext beyond this machine")


def connect(arguments: argparse.Namespace) -> tuple[grpc.Channel, list[tuple[str, str]]]:
    """A channel, which connects with the first call, and the metadata that every call carries."""
    if arguments.data:
        described = tomllib.loads((arguments.data / "context.toml").read_text())
        endpoint, token, ca_file = described["endpoint"], described["token"], described.get("ca_file")
        ca_file = arguments.data / ca_file if ca_file else None
    elif arguments.endpoint and arguments.token_file:
        endpoint, token, ca_file = arguments.endpoint, arguments.token_file.read_text().strip(), None
    else:
        raise SystemExit("say which control plane: --data DIR, or --endpoint URL --token-file FILE")
    ca_file = arguments.ca_file or ca_file

    url = urllib.parse.urlsplit(endpoint)
    if url.scheme == "https":
        credentials = grpc.ssl_channel_credentials(ca_file.read_bytes() if ca_file else None)
        channel = grpc.secure_channel(url.netloc, credentials, OPTIONS)
    elif url.hostname in ("localhost", "127.0.0.1", "::1") or arguments.insecure:
        channel = grpc.insecure_channel(url.netloc, OPTIONS)
    else:
        raise SystemExit(f"{endpoint} would send token and mail in clear; use https://, or say --insecure")
    return channel, [("authorization", f"Bearer {token}")]
