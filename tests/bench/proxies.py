"""The peers: how each is made to do one hop in the clear, or two hops over TLS 1.3 with both sides verified.

Every peer has one worker, keep-alive pools that hold all the connections of the load, and no session resumption.
"""

import dataclasses
import json
import pathlib
import re
import subprocess

import load
from lab import ADDRESS, CLIENT, LOAD_CPU, PROXY_CPU, SERVER, Failure, Process, UnixHttp, wait_until

BACKEND_PORT = {"http": load.HTTP, "http2": load.HTTP2, "opaque": load.BLOB}


@dataclasses.dataclass
class Running:
    """A peer at work: the port the load goes to, and its proxy processes, client side first."""

    port: int
    proxies: list[Process]
    idle_mib: tuple = ()


@dataclasses.dataclass
class Peer:
    name: str
    number: int

    @property
    def port(self):
        return 7001 + self.number

    @property
    def link_port(self):
        return 4143 + self.number

    def start(self, lab, scenario):
        """Starts the proxies in the order of dependence and waits until a request goes all the way."""
        proxies = self.launch(lab, scenario)
        wait_until(f"a request through {self.name}", lambda: load.answers(lab, CLIENT, scenario.protocol, self.port), *proxies)
        return Running(self.port, proxies, tuple(p.rss_mib() for p in proxies))

    def write(self, lab, side, text):
        path = lab.dir / f"{self.name}-{side}.conf"
        path.write_text(text, encoding="utf-8")
        return path

    def cannot(self, _scenario):
        """Why this peer has no figure in a scenario, if so."""
        return None


class Haproxy(Peer):
    def launch(self, lab, scenario):
        mode = "tcp" if scenario.protocol == "opaque" else "http"
        proto, alpn = (" proto h2", " alpn h2") if scenario.protocol == "http2" else ("", "")
        common = f"""
global
  nbthread 1
  maxconn 8192
  tune.ssl.cachesize 0
defaults
  mode {mode}
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  {"http-reuse always" if mode == "http" else ""}
"""
        backend = f"{ADDRESS[SERVER]}:{BACKEND_PORT[scenario.protocol]}"
        pool = "pool-max-conn -1 pool-purge-delay 1h"
        if scenario.hops == 2:
            tls = f"ssl ca-file {lab.dir}/ca.pem verify required no-tls-tickets ssl-min-ver TLSv1.3"
            server = self.write(
                lab,
                "server",
                f"""{common}
frontend in
  bind {ADDRESS[SERVER]}:{self.link_port} {tls} crt {lab.dir}/server.pem{alpn}
  default_backend app
backend app
  server app 127.0.0.1:{BACKEND_PORT[scenario.protocol]} {pool}{proto}
""",
            )
            hop = f"{ADDRESS[SERVER]}:{self.link_port} {tls} crt {lab.dir}/client.pem verifyhost server no-ssl-reuse {pool}{alpn}"
        else:
            hop = f"{backend} {pool}{proto}"
        client = self.write(
            lab,
            "client",
            f"""{common}
frontend out
  bind 127.0.0.1:{self.port}{proto}
  default_backend peer
backend peer
  server peer {hop}
""",
        )
        run = lambda pod, config: lab.start(f"{self.name}-{pod}", pod, PROXY_CPU, ["haproxy", "-db", "-q", "-f", config])
        return [run(CLIENT, client)] + ([run(SERVER, server)] if scenario.hops == 2 else [])


class Nginx(Peer):
    STREAM = pathlib.Path("/usr/lib/nginx/modules/ngx_stream_module.so")

    def cannot(self, scenario):
        if scenario.protocol == "http2":
            return "nginx does not proxy to HTTP/2 servers"
        if scenario.protocol == "opaque" and not self.STREAM.exists():
            return "needs the package libnginx-mod-stream"
        return None

    def launch(self, lab, scenario):
        wrap = self.stream if scenario.protocol == "opaque" else self.http
        backend = f"127.0.0.1:{BACKEND_PORT[scenario.protocol]}"
        verify = f"ssl_certificate {lab.dir}/server.pem; ssl_certificate_key {lab.dir}/server.pem; ssl_client_certificate {lab.dir}/ca.pem; ssl_verify_client on; ssl_protocols TLSv1.3; ssl_session_tickets off; ssl_session_cache off;"
        present = f"proxy_ssl_certificate {lab.dir}/client.pem; proxy_ssl_certificate_key {lab.dir}/client.pem; proxy_ssl_trusted_certificate {lab.dir}/ca.pem; proxy_ssl_verify on; proxy_ssl_name server; proxy_ssl_protocols TLSv1.3; proxy_ssl_session_reuse off;"
        proxies = []
        if scenario.hops == 2:
            link = f"{ADDRESS[SERVER]}:{self.link_port}"
            config = self.write(lab, "server", wrap(lab, "server", f"{link} ssl", verify, backend, False))
            proxies.append(self.run(lab, SERVER, config))
            config = self.write(lab, "client", wrap(lab, "client", f"127.0.0.1:{self.port}", present, link, True))
        else:
            backend = f"{ADDRESS[SERVER]}:{BACKEND_PORT[scenario.protocol]}"
            config = self.write(lab, "client", wrap(lab, "client", f"127.0.0.1:{self.port}", "", backend, False))
        return [self.run(lab, CLIENT, config), *proxies]

    def run(self, lab, pod, config):
        return lab.start(f"{self.name}-{pod}", pod, PROXY_CPU, ["nginx", "-e", "stderr", "-c", config])

    def preamble(self, lab, side):
        return f"daemon off; user root; worker_processes 1; pid {lab.dir}/nginx-{side}.pid; error_log stderr warn; events {{ worker_connections 8192; }}"

    def http(self, lab, side, listen, tls, upstream, secure):
        scheme = "https" if secure else "http"
        return f"""{self.preamble(lab, side)}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h;
  upstream next {{ server {upstream}; keepalive 512; keepalive_requests 1000000000; keepalive_timeout 1h; }}
  server {{
    listen {listen}; {tls}
    location / {{ proxy_pass {scheme}://next; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""

    def stream(self, lab, side, listen, tls, upstream, secure):
        return f"""load_module {self.STREAM}; {self.preamble(lab, side)}
stream {{ server {{ listen {listen}; {tls} proxy_pass {upstream}; {"proxy_ssl on;" if secure else ""} }} }}
"""


class Mesh(Peer):
    binary = "mesh"
    APP_PROTOCOL = {"http": "http", "http2": "kubernetes.io/h2c", "opaque": "tcp"}
    HINT = {"http": "http", "http2": "http2", "opaque": "opaque"}

    def launch(self, lab, scenario):
        source = lab.dir / f"mesh-{scenario.name}"
        (source / "endpoints").mkdir(parents=True)
        address = ADDRESS[SERVER]
        controller = lab.start("mesh-controller", SERVER, LOAD_CPU, [self.binary, "controller", "--source", source, "--listen", f"{address}:0"])
        wait_until("the controller", lambda: (source / ".mesh/controller.json").exists(), controller)
        if scenario.hops == 2:
            application = f"127.0.0.1:{BACKEND_PORT[scenario.protocol]}/{self.HINT[scenario.protocol]}"
            server = self.proxy(lab, source, SERVER, ["--inbound", f"{address}:{self.link_port}={application}"])
            self.announce(source, scenario, self.link_port, meshed=True)
        else:
            self.announce(source, scenario, BACKEND_PORT[scenario.protocol], meshed=False)
        client = self.proxy(lab, source, CLIENT, ["--upstream", f"bench/server:80=127.0.0.1:{self.port}"])
        self.socket = self.private(source, CLIENT)
        self.secured = scenario.hops == 2
        return [client, server] if scenario.hops == 2 else [client]

    def start(self, lab, scenario):
        running = super().start(lab, scenario)
        # A figure for plaintext under the name of mutual TLS would be worse than none.
        if self.secured:
            wait_until("mutual TLS between the proxies", lambda: self.says_mutual_tls(), *running.proxies)
        return running

    def says_mutual_tls(self):
        status, text = UnixHttp(self.socket).ask("GET", "/stats?window=60s")
        if status == 404:
            status, text = UnixHttp(self.socket).ask("GET", "/metrics")
        return status == 200 and re.search(rb'tls="mtls"', text) is not None

    def proxy(self, lab, source, pod, listeners):
        token = self.join_token(source, pod)
        socket = self.private(source, pod)
        socket.parent.mkdir(parents=True, exist_ok=True)
        command = [
            self.binary, "proxy", "--namespace", "bench", "--workload", f"deploy/{pod}", "--pod", f"{pod}-1",
            "--service-account", pod, "--join-token", token, *listeners,
            "--admin", "127.0.0.1:0", "--private-admin", f"unix:{socket}", "--workers", "1",
        ]  # fmt: skip
        proxy = lab.start(f"mesh-{pod}", pod, PROXY_CPU, command)
        wait_until(f"mesh-{pod} ready", lambda: UnixHttp(socket).ask("GET", "/ready")[0] == 200, proxy)
        return proxy

    @staticmethod
    def private(source, pod):
        return source / ".mesh/proxies" / f"{pod}-1.sock"

    @staticmethod
    def join_token(source, account):
        body = json.dumps({"namespace": "bench", "service_account": account})
        status, text = UnixHttp(source / ".mesh/controller.sock").ask("POST", "/v1/join", body)
        if status != 200:
            raise Failure(f"no join token for {account}: {status} {text.decode(errors='replace')}")
        return json.loads(text)["token"]

    def announce(self, source, scenario, port, meshed):
        """Writes the EndpointSlice of the server: of its proxy, or of the application itself."""
        annotations = {
            "mesh.dev/identity": "spiffe://local/ns/bench/sa/server",
            "mesh.dev/workload": "bench/deploy/server",
            "mesh.dev/socket": ".mesh/proxies/server-1.sock",
        }
        endpoint_slice = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "server-1",
                "namespace": "bench",
                "labels": {"kubernetes.io/service-name": "server"},
                "annotations": annotations if meshed else {},
            },
            "addressType": "IPv4",
            "ports": [{"name": "80", "port": port, "appProtocol": self.APP_PROTOCOL[scenario.protocol]}],
            "endpoints": [{"addresses": [ADDRESS[SERVER]], "conditions": {"ready": True}}],
        }
        whole = source / ".mesh" / "server-1.json"
        whole.write_text(json.dumps(endpoint_slice), encoding="utf-8")
        whole.rename(source / "endpoints" / "server-1.json")


def make_certificates(lab):
    """A root and two leaves for the peers that bring none of their own; each leaf's file holds its key too."""

    def openssl(*arguments):
        done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failure(f"openssl {arguments[0]}: {done.stderr.strip()}")

    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    openssl(*new, "-subj", "/CN=root", "-keyout", lab.dir / "ca.key", "-out", lab.dir / "ca.pem")
    for name in ("server", "client"):
        key, certificate = lab.dir / f"{name}.key", lab.dir / f"{name}.crt"
        signed = ["-CA", lab.dir / "ca.pem", "-CAkey", lab.dir / "ca.key", "-addext", f"subjectAltName=DNS:{name}"]
        openssl(*new, *signed, "-addext", "basicConstraints=critical,CA:FALSE", "-subj", f"/CN={name}", "-keyout", key, "-out", certificate)
        (lab.dir / f"{name}.pem").write_text(certificate.read_text("ascii") + key.read_text("ascii"), encoding="ascii")


PEERS = {"mesh": Mesh("mesh", 0), "haproxy": Haproxy("haproxy", 1), "nginx": Nginx("nginx", 2)}
