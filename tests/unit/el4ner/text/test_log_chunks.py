"""Proposals for log lines: forms are whole, compounds are taken apart, the message's own words are left alone."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from el4ner.text.chunks import chunks

PIECES = st.sampled_from(
    [
        "Jan  2 03:04:05",
        "2025-01-02T03:04:05.678Z",
        "[02/Jan/2025:03:04:05 +0000]",
        "192.0.2.7",
        "192.0.2.7:22",
        "10.0.0.0/8",
        "2001:db8::1",
        "[2001:db8::1]:443",
        "fe80::1%eth0",
        "std::string",
        "12:34:",
        "https://user@example.org:8080/a_(b)?c=d,",
        "http://[::1]/",
        "C:\\Program Files\\App\\x.log:",
        "CORP\\ada",
        "key='a b'",
        '"key": "value"',
        "a/b",
        "/var/log/x.py:12",
        "x@y.example",
        "3.5 ms",
        "can't",
        "::",
        "@",
        "é中👍",
    ]
)
LINES = st.lists(PIECES | st.text(st.characters(codec="utf-8"), max_size=5), max_size=8).flatmap(
    lambda pieces: st.sampled_from([" ", ""]).map(lambda glue: glue.join(pieces))
)


@given(LINES)
@example('"' * 40)
@example("a:" * 200 + "//")
@example("C:\\" + "a " * 300)
def test_spans_are_exact_sorted_and_unique(line: str) -> None:
    spans = [chunk.span for chunk in chunks(line, "log")]
    assert all(line[span.start : span.end] == span.text and span.text.strip() for span in spans)
    keys = [(span.start, -span.end) for span in spans]
    assert keys == sorted(set(keys))


@pytest.mark.parametrize(
    ("line", "expected", "absent"),
    [
        ("up since 2025-01-02T03:04:05.678Z", {"2025-01-02T03:04:05.678Z"}, {"2025-01-02T03", "678Z", "up", "since"}),
        ("Jan  2 03:04:05 relay cron[7]: x", {"Jan  2 03:04:05", "relay", "cron", "7"}, {"Jan", "03", "cron[7]"}),
        ("[Mon Jan 02 03:04:05 2025] [error] a_b", {"Mon Jan 02 03:04:05 2025", "a_b"}, {"Mon Jan", "error"}),
        ("peer 192.0.2.7:22 gone", {"192.0.2.7", "22"}, {"192.0.2.7:22"}),
        ("client 192.0.2.7#53: query", {"192.0.2.7", "53"}, set()),
        ("route 10.0.0.0/8", {"10.0.0.0/8", "10.0.0.0"}, {"8"}),
        ("to [2001:db8::1]:443", {"2001:db8::1", "443"}, {"2001", "db8"}),
        ("from 2001:db8::1: reset", {"2001:db8::1"}, {"2001:db8::1:"}),
        ("net 2001:db8::/32 dev fe80::1%eth0", {"2001:db8::/32", "2001:db8::", "fe80::1", "eth0"}, {"db8"}),
        ("link 02:42:ac:11:00:09 up", {"02:42:ac:11:00:09"}, {"02", "42"}),
        (
            "get https://api.example.org:8443/a?b=c.",
            {"https://api.example.org:8443/a?b=c", "api.example.org"},
            {"https"},
        ),
        ("see http://[::1]:80/x", {"http://[::1]:80/x", "::1"}, {"80"}),
        ("to=<ada@example.org>", {"ada@example.org", "ada", "example.org"}, {"to"}),
        ("db.example.org:5432 is down", {"db.example.org", "5432"}, {"down"}),
        ("at /srv/app/x.py:12:3", {"/srv/app/x.py"}, {"/srv/app/x.py:12", "srv"}),
        ("open C:\\Program Files\\App\\x.log failed", {"C:\\Program Files\\App\\x.log"}, {"Files"}),
        ("CORP\\ada logged on", {"CORP\\ada", "CORP", "ada"}, {"logged"}),
        ('level=info msg="disk is full" user="ada"', {"disk is full", "ada"}, {"level", "info", "msg", "user"}),
        ('{"host":"relay","n":3}', {"relay", "3"}, {"host", "n"}),
        ("block blk_-123 id 6b1d77c2-0f3e-4c1e-9f00-aabbccddeeff", {"blk_-123"}, {"123"}),
        ("nginx:1.25.3 pulled", {"nginx:1.25.3", "nginx", "1.25.3"}, {"pulled"}),
        ("java.io.IOException: ENOSPC", {"java.io.IOException", "ENOSPC"}, {"io"}),
        ("took 3.5 ms for 12MB", {"3.5 ms", "12MB"}, {"3.5", "12", "ms"}),
        ('"GET /a?b=c HTTP/1.1" 404 153', {"/a?b=c", "404", "153"}, {"GET", "HTTP/1.1", "c"}),
        ("invalid user user from 192.0.2.7", {"user"}, {"from"}),
        ("session closed for user ada", {"ada"}, {"closed", "user"}),
        ("node/worker-3 and web/api-2:80", {"worker-3", "node/worker-3", "api-2"}, {"node"}),
        ("now the Print Server has stopped", {"Print Server"}, {"stopped", "has"}),
        ("host relay/192.0.2.9:80", {"relay", "192.0.2.9", "80"}, {"relay/"}),
        (
            r'2001:db8::7 - - "\x16\x03\x01\x00" 400 0',
            {"2001:db8::7", "400"},
            {r"\x16\x03\x01\x00", "x16", "x03", "x00"},
        ),
        (r'::1 - - "\x80w\x01" 400 0', {"::1", "400"}, {"x80w", "x01"}),
        (r"logon of CORP\xaver", {r"CORP\xaver", "xaver", "CORP"}, set()),
        ("to 0c:9d:92:1f:77:a4 and 00-11-22-33-44-55", {"0c:9d:92:1f:77:a4", "00-11-22-33-44-55"}, {"92", "0c"}),
        ("host 0c9d.921f.77a4 seen", {"0c9d.921f.77a4"}, set()),
        ("lost 24h.example.org and 9s-node", {"24h.example.org", "9s-node"}, {"24h", "9s"}),
        ("got 17-34-9-81.cable.example.net [192.0.2.7]", {"17-34-9-81.cable.example.net", "192.0.2.7"}, {"17-34-9-81"}),
        ("a=1^who=ada^addr=192.0.2.7^x=2", {"ada", "192.0.2.7"}, {"who", "addr", "192.0.2.7^x"}),
        ("x|granite;ada;|<b>eve</b>", {"granite", "ada", "eve"}, {"granite;ada"}),
        ("open 443 ada 192.0.2.7 wide", {"ada"}, {"wide"}),
        ("to 192.0.2.7 port 49 v2", {"49", "v2"}, {"port"}),
        ("pool_a/orion then postfix/smtpd", {"orion", "postfix/smtpd"}, {"smtpd", "postfix"}),
        ("cron[7]: orion (10 ms) went", {"orion"}, {"went"}),
        ("granite:9092 is late", {"granite", "9092"}, {"late"}),
        ("from fd00:7a58::4246:25251 out", {"fd00:7a58::4246"}, {"7a58"}),
        ('user "ada": mismatch, {"ada": 1}', {"ada"}, set()),
        ("account service from afar", {"service"}, {"afar."}),
        ("for service from afar, for user ada", {"service", "ada"}, {"user"}),
        ("the netlogon service, nodes granite", {"netlogon", "granite"}, {"the"}),
        ("restarting caddy now", {"caddy"}, {"now"}),
        ('"GET / HTTP/1.1" 5 / 6', {"/"}, {"GET"}),
        ("id=3f2a91c0-7d1e-4b52-9c3a-5f6e7d8c9b0a;", {"3f2a91c0-7d1e-4b52-9c3a-5f6e7d8c9b0a"}, {"3f2a91c0", "7d1e"}),
    ],
)
def test_log_lines(line: str, expected: set[str], absent: set[str]) -> None:
    found = {chunk.span.text for chunk in chunks(line, "log")}
    assert expected <= found
    assert not absent & found
