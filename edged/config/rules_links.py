"""What the types cannot say about brokers, the status socket, limits and hardware. Pure: values in, findings out."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from urllib.parse import SplitResult, urlsplit

from edged.config.hardware import Rollout
from edged.config.problems import Finding
from edged.config.settings import Broker, Config, Limits, Results, Status, Upstream

# Where each runtime can run. `gpu` of onnxruntime is CUDA; devices of one kind are counted from 0: `gpu:1`.
RUNTIME_DEVICES: dict[str, tuple[str, ...]] = {
    "onnxruntime": ("cpu", "gpu", "tensorrt", "npu", "openvino-cpu", "openvino-gpu", "openvino-npu"),
    "openvino": ("cpu", "gpu", "npu"),
    "litert": ("cpu",),
    "coral": ("usb", "pci"),
    "tensorrt": ("gpu", "dla"),
    "split": ("upstream",),  # the head of a model here, its tail at the centre
}
_RUNG = re.compile(r"[a-z][a-z0-9_-]{0,63}(:[a-z0-9_.:-]{1,64})?", re.IGNORECASE)
_SLIP = 0.8  # a name so much like a built-in one is a slip of the keyboard, no plug-in
SPLIT = "split:upstream"
RULES = "rules"  # no model at all: the last resort at the end of a chain
_SCHEMES = ("mqtt", "mqtts")
UPSTREAM_SCHEMES = ("mqtt", "mqtts", "http", "https")
_LONGEST_SOCKET_PATH = 107  # bytes in sockaddr_un less the closing zero


def check_broker(broker: Broker) -> Iterator[Finding]:
    """Address, TLS files and password fit together."""
    yield from check_url("url", broker.url)
    yield from _check_tls_files(broker, "mqtts://")
    yield from _check_password(broker)


def check_upstream(upstream: Upstream) -> Iterator[Finding]:
    """Address, TLS files and credentials fit together and to the way that the address names."""
    if upstream.url:
        yield from check_url("url", upstream.url, UPSTREAM_SCHEMES)
    elif not upstream.hub_keys_file:
        cure = "name the hub in url, or its keys in hub_keys_file for a site whose rows leave on a stick"
        yield Finding(("url",), "is missing, and so is hub_keys_file: rows could go nowhere", cure=cure)
    yield from _check_tls_files(upstream, "https://" if upstream.http else "mqtts://")
    yield from _check_password(upstream)
    if upstream.http:
        for name in ("username", "password_file", "password_credential"):
            if given := getattr(upstream, name):
                cure = "name the token in token_file, or a certificate in cert_file"
                yield Finding((name,), "has no effect over HTTP", given, cure=cure, uses=("url",))
    if upstream.token_file and not (upstream.http and upstream.tls):
        cure = "write https:// in upstream.url, or remove it: without TLS everybody on the way could read the token"
        yield Finding(("token_file",), "needs https", upstream.token_file, cure=cure, uses=("url",))
    for index, stream in enumerate(upstream.streams):
        if stream in upstream.streams[:index]:
            yield Finding(("streams", index), "stands there twice", stream, cure="name each stream once")
    if "alarm" not in upstream.streams:
        cure = 'add "alarm" to upstream.streams'
        yield Finding(("streams",), "leaves out the alarms", list(upstream.streams), cure=cure, note=True)


def check_questions(config: Config) -> Iterator[Finding]:
    """Who is to be asked can be asked: by MQTT 5, which carries where an answer goes and how long a question counts."""
    upstream = config.upstream
    missing = upstream is None or not upstream.url or upstream.http
    if not missing and upstream is not None and upstream.protocol != "3.1.1":
        return
    what = "the upstream cannot be asked" if missing else "upstream.protocol is 3.1.1, and questions need MQTT 5"
    cure = 'name a broker in [upstream] url, "mqtts://host", with protocol auto or 5; or remove it'
    for index, pipeline in enumerate(config.pipeline):
        if SPLIT in (pipeline.model.chain or config.hardware.chain):
            yield Finding(("pipeline", index, "model", "chain"), f"names {SPLIT}, but {what}", cure=cure)
        if pipeline.model.cascade is not None and pipeline.model.cascade.where == "upstream":
            yield Finding(("pipeline", index, "model", "cascade", "where"), f"is upstream, but {what}", cure=cure)


def _check_tls_files(link: Broker | Upstream, scheme: str) -> Iterator[Finding]:
    files = {"ca_file": link.ca_file, "cert_file": link.cert_file, "key_file": link.key_file}
    for name, file in files.items():
        if file and not link.tls:
            cure = f"write {scheme} in the url, or remove it"
            yield Finding((name,), "has no effect without TLS", file, cure=cure, uses=("url",))
    if link.key_file and not link.cert_file:
        cure = "name the certificate of this key"
        yield Finding(("key_file",), "needs cert_file", link.key_file, cure=cure, uses=("cert_file",))
    if link.cert_file and not link.key_file:
        cure = "name the private key of this certificate"
        yield Finding(("cert_file",), "needs key_file", link.cert_file, cure=cure, uses=("key_file",))


def _check_password(link: Broker | Upstream) -> Iterator[Finding]:
    if link.password_file and link.password_credential:
        cure = "keep one of password_file and password_credential"
        yield Finding(("password_credential",), "is a second password", cure=cure, uses=("password_file",))
    for name in ("password_file", "password_credential"):
        if getattr(link, name) and not link.username:
            cure = "add username: MQTT 3.1.1 has no password without a user name"
            yield Finding((name,), "needs username", cure=cure, uses=("username",))
    if "\0" in link.client_id + (link.username or ""):
        yield Finding(("client_id",), "contains a zero character", cure="MQTT texts must not contain U+0000")


def check_results(results: Results) -> Iterator[Finding]:
    """At least one form of results that this version can publish."""
    if results.sparkplug:
        cure = "set results.sparkplug = false"
        yield Finding(("sparkplug",), "is reserved, but not built in yet", True, allowed="false", cure=cure)
    if not results.json:
        cure = "set results.json = true"
        yield Finding(("json",), "switches off the only form of results", False, allowed="true", cure=cure)


def check_url(name: str, url: str, schemes: Sequence[str] = _SCHEMES) -> Iterator[Finding]:
    """An address: scheme, host, optional port, a path for HTTP, and nothing else."""
    allowed = " or ".join(f"{scheme}://host[:port]" for scheme in schemes)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        yield Finding((name,), f"is not an address: {error}", url, allowed=allowed)
        return
    if parts.username is not None or parts.password is not None:
        shown = f"{parts.scheme}://…@{parts.hostname}"
        cure = "use username with password_file or password_credential"
        yield Finding((name,), "carries a user or a secret", shown, allowed=allowed, cure=cure)
    elif parts.scheme not in schemes:
        near = difflib.get_close_matches(parts.scheme, schemes, n=1)
        yield Finding((name,), "has an unknown scheme", url, allowed=allowed, nearest=near[0] if near else "")
    elif not _is_host(parts.hostname or "") or port == 0:
        yield Finding((name,), "names no usable host and port", url, allowed=allowed)
    elif _has_more(parts):
        cure = "write only scheme, host and port; topics stand elsewhere"
        yield Finding((name,), "has a path or a query", url, allowed=allowed, cure=cure)


def _has_more(parts: SplitResult) -> bool:
    path_allowed = parts.scheme in {"http", "https"} and not any(char.isspace() for char in parts.path)
    return not (path_allowed or parts.path in {"", "/"}) or bool(parts.query or parts.fragment)


def _is_host(host: str) -> bool:
    """True for something that a resolver can be asked for."""
    return 0 < len(host) <= 253 and not any(char.isspace() or ord(char) < 33 for char in host)


def check_socket(socket: str) -> Iterator[Finding]:
    """The path fits into a socket address."""
    if len(socket.encode()) > _LONGEST_SOCKET_PATH:
        allowed = f"up to {_LONGEST_SOCKET_PATH} bytes"
        cure = "set status.socket to a shorter path"
        yield Finding(("socket",), "is too long for a Unix socket", socket, allowed=allowed, cure=cure)


def check_status(status: Status) -> Iterator[Finding]:
    """Metrics stay on this machine."""
    if status.metrics_listen is not None and not _is_loopback(status.metrics_listen):
        yield Finding(
            ("metrics_listen",),
            "is not a loopback address",
            status.metrics_listen,
            allowed="127.0.0.1:port, [::1]:port or localhost:port",
            cure="metrics have no password: put a proxy in front for other machines",
        )


def _is_loopback(listen: str) -> bool:
    try:
        parts = urlsplit(f"//{listen}")
        host, port = parts.hostname or "", parts.port
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
    return local and port is not None and port > 0 and parts.username is None and not parts.path


def check_limits(limits: Limits) -> Iterator[Finding]:
    """Limits that contradict each other."""
    if limits.device_offline_s <= limits.device_stale_s:
        yield Finding(
            ("device_offline_s",),
            "must be longer than device_stale_s",
            limits.device_offline_s,
            allowed=f"above {limits.device_stale_s} s",
            unit="s",
            uses=("device_stale_s",),
        )


def check_memory(limits: Limits, broker: Broker) -> Iterator[Finding]:
    """One allowed payload fits into what may wait in memory; otherwise it could never be read."""
    if limits.max_payload_bytes > broker.max_unacked_bytes:
        yield Finding(
            ("max_payload_bytes",),
            "is more than may wait in memory",
            limits.max_payload_bytes,
            allowed=f"up to broker.max_unacked_bytes, {broker.max_unacked_bytes} bytes",
            unit="bytes",
            cure="raise broker.max_unacked_bytes or lower this",
        )


def check_chain(chain: Sequence[str]) -> Iterator[Finding]:
    """Each entry is a runtime on a device it can use, or may be a plug-in's; `rules` is last; none twice."""
    allowed = ", ".join(f"{name}:{'|'.join(devices)}" for name, devices in RUNTIME_DEVICES.items()) + f", {RULES}"
    for index, entry in enumerate(chain):
        runtime, _, device = entry.partition(":")
        where = ("chain", index)
        if entry in chain[:index]:
            yield Finding(where, "stands there twice", entry, cure="a runtime that failed is not tried again at once")
        elif entry == RULES:
            if index != len(chain) - 1:
                yield Finding(where, "ends the chain", entry, cure=f'write "{RULES}" last: it never fails')
        elif not _RUNG.fullmatch(entry):
            yield Finding(where, "is no runtime on a device", entry, allowed=f"{allowed}, or a plug-in as name:device")
        elif runtime not in RUNTIME_DEVICES:
            near = difflib.get_close_matches(runtime, [*RUNTIME_DEVICES, RULES], n=1, cutoff=_SLIP)
            if near:
                yield Finding(where, "is no known runtime", entry, allowed=allowed, nearest=near[0])
            else:
                cure = "install the plug-in that brings it"
                yield Finding(where, "is no built-in runtime", entry, allowed=allowed, cure=cure, note=True)
        elif not _is_device(device, RUNTIME_DEVICES[runtime]):
            devices = " or ".join(f"{runtime}:{kind}" for kind in RUNTIME_DEVICES[runtime])
            yield Finding(where, "names no device of this runtime", entry, allowed=f"{devices}, several as :0, :1")


def check_rollout(rollout: Rollout) -> Iterator[Finding]:
    """Each stage reaches more gateways than the one before, and the last one all of them."""
    stages = rollout.stages
    cure = "write rising shares that end with 1.0"
    if any(after <= before for before, after in pairwise(stages)):
        yield Finding(("stages",), "do not rise", list(stages), cure=cure)
    elif stages[-1] != 1:
        yield Finding(("stages",), "leave gateways behind", list(stages), allowed="1.0 as the last one", cure=cure)


def _is_device(device: str, kinds: Sequence[str]) -> bool:
    kind, colon, number = device.partition(":")
    return kind in kinds and (not colon or (number.isascii() and number.isdigit() and len(number) <= 2))
