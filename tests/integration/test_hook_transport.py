"""How the hook uses the wire: connections, repeats, redirects, proxies, certificates."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_pika import __version__
from airflow_provider_pika.api.job import Job
from airflow_provider_pika.exceptions import (
    PikaError,
    PikaRequestError,
    PikaUnavailableError,
    PikaUnknownOutcomeError,
)
from airflow_provider_pika.hooks.pika import PikaHook
from tests.support.hook_tools import (
    ASKS,
    DISCORD,
    JOBID,
    TOKEN,
    connect,
    http,
    no_proxies,
    read,
    recorder,
    submit,
)

JOB = {"jobid": JOBID, "status": "progress", "code": 200}
OK = http(200, JOB)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    no_proxies(monkeypatch)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken but not listened on: whoever comes is refused."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_the_jobid_goes_out_percent_encoded_behind_the_slash(monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder(OK) as server:
        connect(monkeypatch, server.url)
        read("job", "job:1-a/b&c=d e%f+g#h~ü")
    (request,) = server.requests
    assert request.split(b"\r\n")[0] == (
        b"GET /v1/pika/jobs/?jobid=job%3A1-a%2Fb%26c%3Dd%20e%25f%2Bg%23h~%C3%BC HTTP/1.1"
    )


def test_a_root_url_with_a_path_is_put_before_the_apis(monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder(http(200, [])) as server:
        connect(monkeypatch, f"{server.url}/gate/")
        assert read("list") == []
    assert server.requests[0].startswith(b"GET /gate/v1/pika/jobs HTTP/1.1")


def test_every_call_carries_the_whole_token_and_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder(OK) as server:
        connect(monkeypatch, server.url)
        read("job")
    (request,) = server.requests
    assert f"authorization: bearer {TOKEN.lower()}" in server.heads[0]
    assert f"Bearer {TOKEN}".encode() in request
    assert f"user-agent: airflow-provider-pika/{__version__}" in server.heads[0]


def test_a_submit_carries_the_token_the_version_and_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder(OK) as server:
        connect(monkeypatch, server.url)
        submit()
    (head,) = server.heads
    assert head.startswith("post /v1/pika/encrypt_text http/1.1")
    assert f"authorization: bearer {TOKEN.lower()}" in head
    assert f"user-agent: airflow-provider-pika/{__version__}" in head
    assert "content-type: multipart/form-data; boundary=" in head
    body = server.requests[0].partition(b"\r\n\r\n")[2]
    assert f"content-length: {len(body)}" in head
    assert "transfer-encoding" not in head


def test_the_emulator_sees_the_version_in_the_user_agent(pika_emulator: Any) -> None:
    read("list")
    assert pika_emulator.requests()[-1]["user_agent"] == f"airflow-provider-pika/{__version__}"


def test_several_reads_share_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder(OK) as server:
        connect(monkeypatch, server.url)
        read("job", times=4)
    assert (len(server.requests), server.connections) == (4, 1)


def test_a_submit_and_reads_share_one_session(monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder(OK) as server:
        connect(monkeypatch, server.url)
        hook = PikaHook()
        hook.encrypt_text(message="HI", prompt="waves")
        hook.get_job(JOBID)
        assert hook.get_conn() is hook.get_conn()
        hook.get_conn().close()
    assert len(server.requests) == 2
    assert server.connections <= 2


def test_netrc_does_not_replace_the_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1\nlogin somebody\npassword else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with recorder(OK) as server:
        connect(monkeypatch, server.url)
        read("job")
        submit()
    assert len(server.requests) == 2
    assert all(f"Bearer {TOKEN}".encode() in request for request in server.requests)
    assert not any("basic" in head for head in server.heads)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirected_submit_is_not_sent_on(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 307 would re-send the body, with the Discord token in it, to wherever the answer points."""
    with recorder(OK) as target, recorder(http(status, Location=f"{target.url}/v1/pika/encrypt_text")) as server:
        connect(monkeypatch, server.url, discord_token=DISCORD, channel="1")
        error = submit()
        assert type(error) is PikaRequestError
        assert error.status == status
        assert target.url in str(error)
        assert (len(server.requests), target.connections) == (1, 0)


@pytest.mark.parametrize("status", [301, 307])
def test_a_redirected_read_is_not_sent_on(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder(OK) as target, recorder(http(status, Location=f"{target.url}/v1")) as server:
        connect(monkeypatch, server.url)
        error = read("job")
        assert type(error) is PikaUnavailableError
        assert (len(server.requests), target.connections) == (1, 0)


def test_the_emulators_redirect_is_not_followed(pika_emulator: Any) -> None:
    pika_emulator.fault("submit", "redirect")
    assert type(submit()) is PikaRequestError
    assert pika_emulator.counters()["redirects_followed"] == 0


def test_a_submit_that_is_dropped_after_it_was_read_is_never_sent_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder(None) as server:
        connect(monkeypatch, server.url)
        error = submit()
    assert type(error) is PikaUnknownOutcomeError
    assert (len(server.requests), server.connections) == (1, 1)


def test_a_submit_on_a_kept_connection_that_breaks_is_never_sent_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The classic of keep-alive: the server closes just as the request comes."""
    with recorder(lambda request: OK if len(server.requests) == 1 else None) as server:
        connect(monkeypatch, server.url)
        hook = PikaHook()
        hook.encrypt_text(message="HI", prompt="waves")
        with pytest.raises(PikaUnknownOutcomeError):
            hook.encrypt_text(message="HI", prompt="waves")
        hook.get_conn().close()
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [408, 413, 429, 500, 502, 503, 504])
def test_a_submit_is_not_repeated_for_a_retry_after(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder(http(status, {"error": "E"}, Retry_After="0")) as server:
        connect(monkeypatch, server.url)
        assert isinstance(submit(), PikaError)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [413, 429, 503])
def test_a_read_is_not_repeated_for_a_retry_after(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The waiter decides when to look again; the hook neither sleeps nor repeats."""
    with recorder(http(status, {"error": "E"}, Retry_After="0")) as server:
        connect(monkeypatch, server.url)
        assert isinstance(read("job"), PikaError)
    assert len(server.requests) == 1


def test_a_read_that_was_sent_and_dropped_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder(None) as server:
        connect(monkeypatch, server.url)
        assert type(read("job")) is PikaUnavailableError
    assert len(server.requests) == 1


def refuse_first(monkeypatch: pytest.MonkeyPatch, times: int) -> list[Any]:
    """Let the first attempts to connect be refused; return the list of all attempts."""
    from urllib3.util import connection

    attempts: list[Any] = []
    make = connection.create_connection

    def create_connection(address: Any, *args: Any, **kwargs: Any) -> Any:
        attempts.append(address)
        if len(attempts) <= times:
            raise ConnectionRefusedError(111, "Connection refused")
        return make(address, *args, **kwargs)

    monkeypatch.setattr(connection, "create_connection", create_connection)
    return attempts


def test_a_read_is_repeated_once_if_no_connection_could_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = refuse_first(monkeypatch, 1)
    with recorder(OK) as server:
        connect(monkeypatch, server.url)
        assert isinstance(read("job"), Job)
    assert (len(attempts), len(server.requests)) == (2, 1)


def test_a_read_is_not_repeated_more_than_once(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = refuse_first(monkeypatch, 99)
    connect(monkeypatch, "http://127.0.0.1:9")
    assert type(read("job")) is PikaUnavailableError
    assert len(attempts) == 2


def test_a_submit_is_not_repeated_even_if_no_connection_could_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = refuse_first(monkeypatch, 1)
    with recorder(OK) as server:
        connect(monkeypatch, server.url)
        assert type(submit()) is PikaUnavailableError
    assert (len(attempts), server.requests) == (1, [])


def test_a_refused_submit_certainly_never_left(closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, f"http://127.0.0.1:{closed_port}")
    error = submit()
    assert type(error) is PikaUnavailableError
    assert "Is the host of the connection 'pika_default' right" in str(error)


def test_a_refused_read_sends_the_reader_to_the_host(closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, f"http://127.0.0.1:{closed_port}")
    error = read("job")
    assert type(error) is PikaUnavailableError
    assert error.jobid == JOBID
    assert f"http://127.0.0.1:{closed_port}/v1/pika/jobs/" in str(error)
    assert "Is the host of the connection 'pika_default' right" in str(error)


@pytest.mark.parametrize("ask", ASKS)
def test_a_closed_port_is_told_as_refused_and_not_as_the_librarys_objects(
    ask: Any, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commonest first error began with 130 characters about a pool and its retries, and its cause behind them."""
    connect(monkeypatch, f"http://127.0.0.1:{closed_port}")
    assert str(ask()).startswith("No answer (Connection refused). ")


@pytest.mark.parametrize("ask", ASKS)
def test_a_server_that_hangs_up_is_told_in_words(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder(None) as server:
        connect(monkeypatch, server.url)
        assert str(ask()).startswith("No answer (Remote end closed connection without response). ")


def test_a_name_that_cannot_be_resolved_is_told_in_the_resolvers_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    connect(monkeypatch, "http://no-such-host.invalid")
    assert str(read("job")).startswith("No answer (Name or service not known). ")


def test_silence_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = threading.Event()
    with recorder(lambda _: silent.wait(5) and None) as server:
        connect(monkeypatch, server.url, timeout=0.2)
        assert str(read("job")).startswith("No answer (timed out). ")
        silent.set()


def test_no_connection_is_told_with_how_long_was_waited_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def drop(*_: Any, **__: Any) -> Any:
        raise TimeoutError("timed out")

    monkeypatch.setattr("urllib3.util.connection.create_connection", drop)
    connect(monkeypatch, "http://127.0.0.1:9")
    assert str(read("job")).startswith("No answer (no connection within 10 s). ")


def test_a_line_that_is_no_http_is_quoted_in_part_and_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder(b"SSH-2.0-OpenSSH_9.6 " + b"x" * 1000 + b"\r\n\r\n") as server:
        connect(monkeypatch, server.url)
        message = str(read("job"))
    assert message.startswith("No answer (no HTTP: SSH-2.0-OpenSSH_9.6 xxx")
    assert "\n" not in message
    assert len(message) < 800


@pytest.mark.parametrize(
    "host", ["http://no-such-host.invalid", f"http://{'a' * 64}.example", "http://*.invalid", "http://a..b"]
)
@pytest.mark.parametrize("ask", ASKS)
def test_a_host_name_that_leads_nowhere_is_unavailable(host: str, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, host)
    error = ask()
    assert type(error) in (PikaUnavailableError, PikaRequestError)
    assert host in str(error) or "'pika_default'" in str(error)


@pytest.mark.parametrize("ask", ASKS)
def test_https_to_a_server_that_speaks_http_is_unavailable(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a submit has left then: TLS comes before the first byte of it."""
    with recorder(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n") as server:
        connect(monkeypatch, server.url.replace("http:", "https:"))
        error = ask()
        assert type(error) is PikaUnavailableError
        assert "The emulator speaks http" in str(error)
        assert not any(TOKEN.encode() in request for request in server.requests)


def test_rubbish_instead_of_http_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder(b"SSH-2.0-OpenSSH_9.6\r\n\r\n") as server:
        connect(monkeypatch, server.url)
        assert type(read("job")) is PikaUnavailableError


def test_rubbish_instead_of_http_leaves_a_submit_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder(b"SSH-2.0-OpenSSH_9.6\r\n\r\n") as server:
        connect(monkeypatch, server.url)
        assert type(submit()) is PikaUnknownOutcomeError
    assert len(server.requests) == 1


def test_a_body_that_cannot_be_unpacked_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder(http(200, b"no gzip", Content_Encoding="gzip")) as server:
        connect(monkeypatch, server.url)
        assert type(read("job")) is PikaUnavailableError


def test_a_body_that_is_no_utf8_is_read_as_far_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder(http(200, b'{"jobid": "job:1", "content": "caf\xe9"}')) as server:
        connect(monkeypatch, server.url)
        assert read("job", "job:1").raw["content"] == "caf�"


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("ask", ASKS)
def test_calls_go_through_the_proxy_of_the_environment(ask: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder(OK) as proxy:
        monkeypatch.setenv(name, proxy.url)
        connect(monkeypatch, "http://pika.invalid")
        assert isinstance(ask(), Job)
    assert re.match(rb"(GET|POST) http://pika\.invalid/v1/pika/", proxy.requests[0])


def test_a_proxy_without_a_scheme_is_taken_as_requests_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder(OK) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{proxy.port}")
        connect(monkeypatch, "http://pika.invalid")
        assert isinstance(read("job"), Job)
    assert len(proxy.requests) == 1


def test_a_proxys_password_reaches_the_proxy_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder(http(407, b"<html>who are you?</html>")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://me:pr0xyS3cret@127.0.0.1:{proxy.port}")
        connect(monkeypatch, "http://pika.invalid")
        error = read("job")
    assert "proxy-authorization: basic" in proxy.heads[0]
    assert isinstance(error, PikaError)
    assert "pr0xyS3cret" not in str(error)


@pytest.mark.parametrize("ask", ASKS)
def test_a_dead_proxy_is_unavailable(ask: Any, closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port}")
    connect(monkeypatch, "http://pika.invalid")
    error = ask()
    assert type(error) is PikaUnavailableError
    assert str(error).startswith("No answer (the proxy: Connection refused). ")


@pytest.mark.parametrize("proxy", ["nonsense://127.0.0.1:1", "http://127.0.0.1:port", "socks5://127.0.0.1:1"])
def test_a_proxy_that_cannot_be_used_is_told_as_a_pika_error(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A raw exception would end a wait that a passing fault must not end."""
    monkeypatch.setenv("HTTP_PROXY", proxy)
    connect(monkeypatch, "http://pika.invalid")
    assert isinstance(read("job"), PikaError)


def test_no_proxy_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder(OK) as server, recorder(OK) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        connect(monkeypatch, server.url)
        read("job")
        assert (len(server.requests), proxy.connections) == (1, 0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody trusts, with its key behind it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(made.public_bytes(pem) + private)
    return path


@contextlib.contextmanager
def tls_server(certificate: Path) -> Iterator[Any]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with recorder(OK, context) as server:
        yield server


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_ca_bundle_of_the_environment_is_trusted(
    ask: Any, name: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, str(certificate))
    with tls_server(certificate) as server:
        connect(monkeypatch, server.url)
        assert isinstance(ask(), Job)


@pytest.mark.parametrize("ask", ASKS)
def test_a_server_nobody_vouches_for_gets_no_token(
    ask: Any, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tls_server(certificate) as server:
        connect(monkeypatch, server.url)
        error = ask()
        assert type(error) is PikaUnavailableError
        assert str(error).startswith("No answer ([SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: ")
        assert server.requests == []


@pytest.mark.parametrize("ask", ASKS)
def test_a_ca_bundle_that_is_not_there_is_a_clear_error(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent/ca.pem")
    connect(monkeypatch, "https://127.0.0.1:9")
    error = ask()
    assert isinstance(error, PikaError)
    assert "/nonexistent/ca.pem" in str(error)


def test_a_ca_bundle_matters_only_for_https(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent/ca.pem")
    with recorder(OK) as server:
        connect(monkeypatch, server.url)
        assert isinstance(read("job"), Job)


def test_a_folder_of_cas_is_taken_as_requests_takes_it(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`requests` takes a folder too; an empty one trusts nobody, which is a TLS failure like any other."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
    with tls_server(certificate) as server:
        connect(monkeypatch, server.url)
        assert type(read("job")) is PikaUnavailableError


def test_reads_at_the_same_time_share_one_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """The triggerer's threads share one hook; a session made twice would never be closed once."""
    together = threading.Barrier(5)

    def answer(request: bytes) -> bytes:
        together.wait(10)
        return OK

    with recorder(answer) as server:
        connect(monkeypatch, server.url)
        hook = PikaHook()
        sessions: list[Any] = []

        def ask() -> None:
            hook.get_job(JOBID)
            sessions.append(hook.get_conn())

        threads = [threading.Thread(target=ask) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        hook.get_conn().close()
    assert len(sessions) == len(server.requests) == 5
    assert len(set(map(id, sessions))) == 1
