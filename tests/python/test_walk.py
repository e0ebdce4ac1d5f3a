"""An outside caller, in another language: nothing here comes from keyledger but its
.proto files, its binary (KEYLEDGER_BIN) and what it writes.

The checksum of a key, the leaf hash of an event, the density of revisions, the codes of an
authenticator and the signatures of access tokens are worked out with the standard library,
so that a mistake on our side cannot agree with itself.
"""

import base64
import csv
import hashlib
import hmac
import importlib
import io
import json
import os
import pathlib
import queue
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
import zlib

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEADLINE_S = 30
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
FILES = sorted(path.stem for path in (ROOT / "proto/keyledger/v1").glob("*.proto"))


class Protos:
    """The modules that grpcio-tools makes of the .proto files."""

    def __init__(self, out):
        sources = [f"keyledger/v1/{name}.proto" for name in FILES]
        subprocess.run(
            [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}"]
            + [f"--python_out={out}", f"--grpc_python_out={out}", *sources],
            check=True,
        )
        sys.path.insert(0, str(out))
        for name in FILES:
            setattr(self, name, importlib.import_module(f"keyledger.v1.{name}_pb2"))
            setattr(self, f"{name}_grpc", importlib.import_module(f"keyledger.v1.{name}_pb2_grpc"))


class Server:
    """The binary on a data directory, on a port that the system chose."""

    def __init__(self, data):
        ours = ("KEYLEDGER_", "ADMIN_API_TOKEN")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        arguments = ["serve", "--listen", "127.0.0.1:0", "--log-format", "json"]
        self.process = subprocess.Popen(
            [os.environ["KEYLEDGER_BIN"], *arguments, "--data-dir", str(data)],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=data.parent,
        )
        watchdog = threading.Timer(DEADLINE_S, self.process.kill)
        watchdog.start()
        self.address = self._address()
        watchdog.cancel()
        # Nobody must wait for us to read the rest.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        self.channel = grpc.insecure_channel(self.address)
        self._wait_until_serving()

    def _address(self):
        for line in self.process.stderr:
            if line.startswith("{") and "address" in json.loads(line)["fields"]:
                return json.loads(line)["fields"]["address"]
        raise AssertionError("the server ended before it listened")

    def _wait_until_serving(self):
        stub = health_pb2_grpc.HealthStub(self.channel)
        until = time.monotonic() + DEADLINE_S
        while True:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S)
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
            assert time.monotonic() < until, "the server never served"

    def stop(self):
        self.channel.close()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(DEADLINE_S) == 0


@pytest.fixture(scope="session")
def protos(tmp_path_factory):
    return Protos(tmp_path_factory.mktemp("protos"))


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def server(data):
    server = Server(data)
    yield server
    server.process.kill()
    server.process.wait(DEADLINE_S)


def bearer(key):
    return [("authorization", f"Bearer {key}")]


def checksum(text):
    """CRC-32 in six digits of base 62, most significant first."""
    rest, digits = zlib.crc32(text.encode()), ""
    for _ in range(6):
        rest, digit = divmod(rest, 62)
        digits = ALPHABET[digit] + digits
    return digits


def refused(code, call, *arguments, **named):
    with pytest.raises(grpc.RpcError) as raised:
        call(*arguments, timeout=DEADLINE_S, **named)
    assert raised.value.code() == code, raised.value
    return raised.value.details()


def audit(data):
    """The stored history as sqlite3 and hashlib see it: the events of each stream."""
    database = sqlite3.connect(f"file:{data / 'ledger.db'}?mode=ro", uri=True)
    rows = database.execute(
        "SELECT position, name, revision, stored, leaf_hash"
        " FROM events JOIN streams USING (stream) ORDER BY position"
    ).fetchall()
    database.close()
    streams = {}
    for place, (position, stream, revision, stored, leaf_hash) in enumerate(rows, start=1):
        events = streams.setdefault(stream, [])
        assert position == place, "positions are dense"
        assert revision == len(events), f"revisions of {stream} are dense"
        assert hashlib.sha256(b"\x00" + stored).digest() == leaf_hash, (stream, revision)
        event = json.loads(stored)
        assert not events or events[-1]["at"] <= event["at"], "time never runs back"
        events.append(event)
    return streams


def test_a_pipelines_key(protos, server, data):
    key, organization, verification = protos.key, protos.organization, protos.verification
    keys = protos.key_grpc.KeyServiceStub(server.channel)
    organizations = protos.organization_grpc.OrganizationServiceStub(server.channel)
    verifier = protos.verification_grpc.VerificationServiceStub(server.channel)
    code = verification.DecisionCode.Value
    admin_key = (data / "admin.key").read_text().strip()
    operator = bearer(admin_key)

    made = organizations.CreateOrganization(
        organization.CreateOrganizationRequest(name="acme", key_prefix="vtx"), metadata=operator
    )
    acme = made.organization.id
    live = protos.common.ENVIRONMENT_LIVE
    administrator = keys.CreateKey(
        key.CreateKeyRequest(
            organization_id=acme,
            name="administrator",
            scopes=protos.common.Scopes(permissions=["org:admin"]),
            environment=live,
        ),
        metadata=operator,
    )
    # From here on the organization acts for itself.
    metadata = bearer(administrator.secret)
    scopes = ["workflows:read", "events:write"]
    request = key.CreateKeyRequest(
        name="ci-pipeline",
        scopes=protos.common.Scopes(permissions=scopes),
        environment=live,
        idempotency_key="first",
    )
    created = keys.CreateKey(request, metadata=metadata)
    secret = created.secret
    assert secret.startswith("vtx_live_") and len(secret) == len("vtx_live_") + 36 + 6
    for text in (secret, administrator.secret, admin_key):
        assert text[-6:] == checksum(text[:-6])
    repeat = keys.CreateKey(request, metadata=metadata)
    assert repeat.secret_already_issued and not repeat.secret
    assert repeat.key.id == created.key.id

    def ask(*permissions, credential=secret):
        return verifier.Verify(
            verification.VerifyRequest(credential=credential, permissions=permissions),
            metadata=operator,
        )

    answer = ask(*scopes)
    assert answer.allowed and answer.code == code("DECISION_CODE_ALLOWED")
    assert answer.organization_id == acme and answer.credential_id == created.key.id
    assert sorted(answer.permissions) == sorted(scopes)
    assert answer.revisions[0].stream == f"org-{acme}"
    for lacking in ("workflows:write", "org:admin"):
        answer = ask("workflows:read", lacking)
        assert not answer.allowed and answer.code == code("DECISION_CODE_PERMISSION_DENIED")
    typo = secret[:12] + ("a" if secret[12] != "a" else "b") + secret[13:]
    assert ask(credential=typo).code == code("DECISION_CODE_MALFORMED")

    refused(
        grpc.StatusCode.PERMISSION_DENIED,
        keys.ListKeys,
        key.ListKeysRequest(),
        metadata=bearer(secret),
    )
    refused(grpc.StatusCode.UNAUTHENTICATED, keys.ListKeys, key.ListKeysRequest())
    said = refused(
        grpc.StatusCode.INVALID_ARGUMENT,
        keys.CreateKey,
        key.CreateKeyRequest(name="x" * 101),
        metadata=metadata,
    )
    assert said.startswith("`name`: ")
    listed = keys.ListKeys(key.ListKeysRequest(), metadata=metadata).keys
    assert [it.name for it in listed] == ["administrator", "ci-pipeline"]
    assert listed[1].masked == f"vtx_live_…{secret[-4:]}"

    keys.RevokeKey(
        key.RevokeKeyRequest(
            key_id=created.key.id,
            reason=key.REVOCATION_REASON_KEY_COMPROMISE,
            comment="seen in a log",
        ),
        metadata=metadata,
    )
    assert ask("workflows:read").code == code("DECISION_CODE_REVOKED")
    refused(
        grpc.StatusCode.UNAUTHENTICATED,
        keys.ListKeys,
        key.ListKeysRequest(),
        metadata=bearer(secret),
    )
    got = keys.GetKey(key.GetKeyRequest(key_id=created.key.id), metadata=metadata).key
    assert got.state == key.KEY_STATE_REVOKED and got.revocation.comment == "seen in a log"

    # The history says all of it, and no secret.
    for running in (True, False):
        if not running:
            server.stop()
        streams = audit(data)
        # What the ledger notes by itself, when it comes to it: uses and denials.
        noted = {"usage-operator", f"usage-{acme}"}
        assert set(streams) - noted == {"org-operator", f"org-{acme}"}
        facts = [it for it in streams[f"org-{acme}"] if it["type"] != "DenialsSummarized"]
        types = [event["type"] for event in facts]
        assert types == ["OrganizationCreated", "KeyCreated", "KeyCreated", "KeyRevoked"]
        assert facts[-1]["data"]["key_id"] == created.key.id
        text = json.dumps(streams)
        for hidden in (secret[9:], administrator.secret[9:], admin_key[5:], "seen in a log"):
            assert hidden not in text
            assert hashlib.sha256(hidden.encode()).hexdigest() not in text

    # And holds after a restart.
    again = Server(data)
    verifier = protos.verification_grpc.VerificationServiceStub(again.channel)
    assert ask("workflows:read").code == code("DECISION_CODE_REVOKED")
    assert ask("any:thing", credential=administrator.secret).allowed
    again.stop()


def test_many_questions_at_once(protos, server, data):
    """Batches and streams answer as Verify does, in order, and see a revocation at once."""
    key, verification = protos.key, protos.verification
    keys = protos.key_grpc.KeyServiceStub(server.channel)
    verifier = protos.verification_grpc.VerificationServiceStub(server.channel)
    code = verification.DecisionCode.Value
    operator = bearer((data / "admin.key").read_text().strip())
    organizations = protos.organization_grpc.OrganizationServiceStub(server.channel)
    acme = organizations.CreateOrganization(
        protos.organization.CreateOrganizationRequest(name="acme", key_prefix="vtx"),
        metadata=operator,
    ).organization.id

    def create(name, *scopes):
        return keys.CreateKey(
            key.CreateKeyRequest(
                organization_id=acme,
                name=name,
                scopes=protos.common.Scopes(permissions=scopes),
                environment=protos.common.ENVIRONMENT_LIVE,
            ),
            metadata=operator,
        )

    created = create("ci", "workflows:read")
    asker = bearer(create("gateway", "credentials:verify").secret)

    def question(permission, credential=created.secret):
        return verification.VerifyRequest(credential=credential, permissions=[permission])

    questions = [question("workflows:read"), question("a:b"), question("a:b", "garbage")] * 300
    expected = ["ALLOWED", "PERMISSION_DENIED", "MALFORMED"] * 300
    expected = [code(f"DECISION_CODE_{name}") for name in expected]

    batch = verifier.VerifyBatch(
        verification.VerifyBatchRequest(questions=questions, correlation_id="all"), metadata=asker
    )
    assert [it.decision.code for it in batch.answers] == expected
    assert {it.decision.correlation_id for it in batch.answers} == {"all"}
    said = refused(
        grpc.StatusCode.INVALID_ARGUMENT,
        verifier.VerifyBatch,
        verification.VerifyBatchRequest(questions=[*questions[:17], question("wrong")]),
        metadata=asker,
    )
    assert said.startswith("`questions[17].permissions[0]`: ")

    asked = queue.SimpleQueue()
    answers = verifier.VerifyStream(iter(asked.get, None), metadata=asker, timeout=DEADLINE_S)
    for number, it in enumerate(questions):
        asked.put(verification.VerifyStreamRequest(id=number, question=it))
    for number in range(len(questions)):
        answer = next(answers)
        assert (answer.id, answer.decision.code) == (number, expected[number])
    # What is wrong in one question is told, and the stream goes on.
    asked.put(verification.VerifyStreamRequest(id=7, question=question("wrong")))
    answer = next(answers)
    assert answer.WhichOneof("answer") == "undecided" and answer.id == 7
    assert answer.undecided.status == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert answer.undecided.message.startswith("`question.permissions[0]`: ")
    # A revocation that has returned holds on a stream that was open before.
    keys.RevokeKey(
        key.RevokeKeyRequest(organization_id=acme, key_id=created.key.id), metadata=operator
    )
    asked.put(verification.VerifyStreamRequest(id=8, question=question("workflows:read")))
    assert next(answers).decision.code == code("DECISION_CODE_REVOKED")
    asked.put(None)
    assert list(answers) == []

    # And the end of the server is one of the stream.
    answers = verifier.VerifyStream(iter(asked.get, None), metadata=asker, timeout=DEADLINE_S)
    answers.initial_metadata()
    server.process.send_signal(signal.SIGTERM)
    with pytest.raises(grpc.RpcError) as raised:
        next(answers)
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "shutting down" in raised.value.details()
    asked.put(None)
    assert server.process.wait(DEADLINE_S) == 0


def test_what_generic_tools_see(protos, server):
    database = ProtoReflectionDescriptorDatabase(server.channel)
    services = {
        f"keyledger.v1.{name}"
        for name in ("KeyService", "OperatorService", "OrganizationService", "VerificationService")
    }
    assert services < set(database.get_services())
    # The files as reflection gives them are the files we compiled.
    for name in FILES:
        file = database.FindFileByName(f"keyledger/v1/{name}.proto")
        served = {message.name for message in file.message_type}
        assert served == set(getattr(protos, name).DESCRIPTOR.message_types_by_name)
    # What errors carry can be read by whoever has no file of it.
    for detail in ("ErrorInfo", "BadRequest"):
        file = database.FindFileContainingSymbol(f"google.rpc.{detail}")
        assert detail in {message.name for message in file.message_type}
    health = health_pb2_grpc.HealthStub(server.channel)
    for service in ["", *services]:
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as raised:
        health.Check(health_pb2.HealthCheckRequest(service="keyledger.v1.Nothing"))
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND


def test_rotation_and_headers(protos, server, data):
    """Rotation without downtime, an import by digest, and the headers users' pages name."""
    key, organization = protos.key, protos.organization
    verification = protos.verification
    keys = protos.key_grpc.KeyServiceStub(server.channel)
    organizations = protos.organization_grpc.OrganizationServiceStub(server.channel)
    verifier = protos.verification_grpc.VerificationServiceStub(server.channel)
    code = verification.DecisionCode.Name
    admin_key = (data / "admin.key").read_text().strip()
    # An administrator's key by the header that is made for it.
    operator = [("x-admin-api-key", admin_key)]
    acme = organizations.CreateOrganization(
        organization.CreateOrganizationRequest(name="acme", key_prefix="vtx"), metadata=operator
    ).organization.id

    def make(name, *permissions, environment=protos.common.ENVIRONMENT_LIVE):
        return keys.CreateKey(
            key.CreateKeyRequest(
                organization_id=acme,
                name=name,
                scopes=protos.common.Scopes(permissions=permissions),
                environment=environment,
            ),
            metadata=operator,
        )

    def ask(secret, *permissions):
        request = verification.VerifyRequest(api_key=[secret], permissions=permissions)
        answer = verifier.Verify(request, metadata=operator)
        return code(answer.code).removeprefix("DECISION_CODE_")

    old = make("ci-pipeline", "workflows:read", "api-keys:write", "api-keys:read")
    test = make("sandbox", "events:write", environment=protos.common.ENVIRONMENT_TEST)
    assert old.secret.startswith("vtx_live_") and test.secret.startswith("vtx_test_")
    # A live key rotates itself, shown as Bearer.
    rotated = keys.RotateKey(
        key.RotateKeyRequest(key_id=old.key.id), metadata=bearer(old.secret)
    )
    assert rotated.predecessor.rotation.successor_id == rotated.key.id
    assert rotated.secret[-6:] == checksum(rotated.secret[:-6])
    for secret in (old.secret, rotated.secret):
        assert ask(secret, "workflows:read") == "ALLOWED"
    keys.EndRotation(key.EndRotationRequest(key_id=old.key.id), metadata=bearer(rotated.secret))
    assert ask(old.secret) == "REVOKED"
    assert ask(rotated.secret, "workflows:read") == "ALLOWED"
    refused(
        grpc.StatusCode.UNAUTHENTICATED,
        keys.ListKeys,
        key.ListKeysRequest(),
        metadata=[("x-api-key", old.secret)],
    )
    # A key of another system goes on as it is, by its digest alone.
    legacy = "legacy-key-of-another-system-0001"
    keys.ImportKeys(
        key.ImportKeysRequest(
            organization_id=acme,
            keys=[
                key.ImportedKey(
                    sha256=hashlib.sha256(legacy.encode()).digest(),
                    name="legacy",
                    scopes=protos.common.Scopes(permissions=["events:write"]),
                )
            ],
        ),
        metadata=operator,
    )
    assert ask(legacy, "events:write") == "ALLOWED"
    # Leaked, it goes, and so does the other one.
    answer = keys.RevokeKeys(
        key.RevokeKeysRequest(list=key.KeyList(leaked=[legacy, test.secret, "never-seen"])),
        metadata=operator,
    )
    outcome = key.KeyRevocationOutcome.Name
    outcomes = [outcome(it.outcome).removeprefix("KEY_REVOCATION_OUTCOME_") for it in answer.keys]
    assert outcomes == ["REVOKED", "REVOKED", "UNKNOWN"]
    assert ask(legacy) == ask(test.secret) == "REVOKED"
    text = json.dumps(audit(data))
    for hidden in (legacy, old.secret[9:], rotated.secret[9:], "never-seen"):
        assert hidden not in text
        assert hashlib.sha256(hidden.encode()).hexdigest() not in text


def totp(uri, offset_s=0):
    """What an authenticator shows that was given this (RFC 6238: SHA-1, six digits, 30 s)."""
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(uri).query)
    secret = query["secret"][0]
    secret = base64.b32decode(secret + "=" * (-len(secret) % 8))
    step = int(time.time() + offset_s) // 30
    mac = hmac.new(secret, step.to_bytes(8, "big"), hashlib.sha1).digest()
    at = mac[-1] & 15
    return f"{(int.from_bytes(mac[at : at + 4], 'big') & 0x7FFFFFFF) % 1_000_000:06}"


P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P


def ed25519_is_signed(public, message, signature):
    """RFC 8032, 5.1.7, as slowly as it can be read."""

    def add(a, b):
        (ax, ay), (bx, by) = a, b
        t = D * ax * bx * ay * by
        x = (ax * by + bx * ay) * pow(1 + t, -1, P)
        y = (ay * by + ax * bx) * pow(1 - t, -1, P)
        return x % P, y % P

    def times(number, point):
        out = (0, 1)
        while number:
            out = add(out, point) if number & 1 else out
            point, number = add(point, point), number >> 1
        return out

    def point(data):
        y = int.from_bytes(data, "little")
        sign, y = y >> 255, y & (2**255 - 1)
        square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
        x = pow(square, (P + 3) // 8, P)
        if (x * x - square) % P:
            x = x * pow(2, (P - 1) // 4, P) % P
        assert (x * x - square) % P == 0, "no point of the curve"
        return (P - x if x & 1 != sign else x), y

    base = point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
    r, s = point(signature[:32]), int.from_bytes(signature[32:], "little")
    k = hashlib.sha512(signature[:32] + public + message).digest()
    k = int.from_bytes(k, "little")
    return times(s, base) == add(r, times(k, point(public)))


def claims_of(address, token):
    """What a token says, as whoever has nothing but the published keys reads it."""

    def decode(text):
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

    with urllib.request.urlopen(f"http://{address}/.well-known/jwks.json") as answer:
        keys = json.load(answer)["keys"]
    signed, _, signature = token.rpartition(".")
    header, claims = (json.loads(decode(part)) for part in signed.split("."))
    assert (header["alg"], header["typ"]) == ("EdDSA", "at+jwt")
    (key,) = [key for key in keys if key["kid"] == header["kid"]]
    assert (key["kty"], key["crv"]) == ("OKP", "Ed25519")
    public, signature = decode(key["x"]), decode(signature)
    assert ed25519_is_signed(public, signed.encode(), signature)
    assert not ed25519_is_signed(public, signed.encode() + b".", signature)
    return claims


def test_people_log_in(protos, server, data):
    """A console's people: log in, act, refresh once, and a copy that ends it all."""
    key, organization, session = protos.key, protos.organization, protos.session
    role, verification = protos.role, protos.verification
    organizations = protos.organization_grpc.OrganizationServiceStub(server.channel)
    sessions = protos.session_grpc.SessionServiceStub(server.channel)
    roles = protos.role_grpc.RoleServiceStub(server.channel)
    keys = protos.key_grpc.KeyServiceStub(server.channel)
    verifier = protos.verification_grpc.VerificationServiceStub(server.channel)
    code = verification.DecisionCode.Name
    operator = bearer((data / "admin.key").read_text().strip())
    email, password = "me@example.com", "correct horse battery"

    acme = organizations.CreateOrganization(
        organization.CreateOrganizationRequest(name="acme", key_prefix="cspm"), metadata=operator
    ).organization.id
    analyst = roles.CreateRole(
        role.CreateRoleRequest(
            organization_id=acme,
            name="analyst",
            description="looks at scans",
            permissions=["scans:read"],
        ),
        metadata=operator,
    ).role.id
    invited = organizations.InviteUser(
        organization.InviteUserRequest(
            organization_id=acme,
            email="Me@Example.com",
            name="Me",
            limits={"max_concurrent_bots": 5},
            grants=[organization.InitialGrant(role_id=analyst)],
        ),
        metadata=operator,
    )
    user = invited.user.id
    accept = organization.AcceptInvitationRequest(
        token=invited.invitation_token, password=password
    )
    assert organizations.AcceptInvitation(accept).account_created
    refused(grpc.StatusCode.UNAUTHENTICATED, organizations.AcceptInvitation, accept)

    # POST /auth/login
    wrong = session.LoginRequest(email=email, password="not the password")
    nobody = session.LoginRequest(email="nobody@example.com", password="not the password")
    said = {refused(grpc.StatusCode.UNAUTHENTICATED, sessions.Login, it) for it in (wrong, nobody)}
    assert len(said) == 1, "nobody learns which of it was wrong"
    right = session.LoginRequest(email=email, password=password)
    tokens = sessions.Login(right).tokens
    me = bearer(tokens.access_token)
    claims = claims_of(server.address, tokens.access_token)
    assert (claims["sub"], claims["tenant_id"], claims["amr"]) == (user, acme, ["pwd"])
    assert claims["exp"] - claims["iat"] == 600

    # GET /auth/me
    who = sessions.WhoAmI(session.WhoAmIRequest(), metadata=me)
    assert (who.email, who.organization_id, list(who.permissions)) == (email, acme, ["scans:read"])

    # What the gateway asks, by the headers that came.
    def ask(permission, **shown):
        request = verification.VerifyRequest(permissions=[permission], **shown)
        answer = verifier.Verify(request, metadata=operator)
        return code(answer.code).removeprefix("DECISION_CODE_"), answer

    made = keys.CreateKey(
        key.CreateKeyRequest(user_id=user, name="automation"),
        metadata=[*me, ("x-correlation-id", "quote-me-1")],
    )
    by_session = {"authorization": [f"Bearer {tokens.access_token}"]}
    by_key = {"api_key": [made.secret]}
    for shown in (by_session, by_key):
        assert ask("findings:write", **shown)[0] == "PERMISSION_DENIED"
        allowed, answer = ask("scans:read", **shown)
        assert allowed == "ALLOWED" and answer.principal.user_id == user
        assert answer.limits["max_concurrent_bots"] == 5
    roles.UpdateRole(
        role.UpdateRoleRequest(
            organization_id=acme,
            role_id=analyst,
            permissions=role.RolePermissions(permissions=["findings:write"]),
        ),
        metadata=operator,
    )
    for shown in (by_session, by_key):
        assert ask("findings:write", **shown)[0] == "ALLOWED", "felt by the next question"
        assert ask("scans:read", **shown)[0] == "PERMISSION_DENIED"
    refused(
        grpc.StatusCode.PERMISSION_DENIED,
        keys.ListKeys,
        key.ListKeysRequest(organization_id="operator"),
        metadata=me,
    )

    # POST /auth/refresh
    first = session.RefreshRequest(refresh_token=tokens.refresh_token)
    following = sessions.Refresh(first).tokens
    assert ask("findings:write", credential=following.access_token)[0] == "ALLOWED"
    refused(grpc.StatusCode.UNAUTHENTICATED, sessions.Refresh, first)
    for token in (tokens, following):
        assert ask("findings:write", credential=token.access_token)[0] == "REVOKED"
        refresh = session.RefreshRequest(refresh_token=token.refresh_token)
        refused(grpc.StatusCode.UNAUTHENTICATED, sessions.Refresh, refresh)
    assert ask("findings:write", **by_key)[0] == "ALLOWED", "a key is no session"

    # A code beside the password.
    me = bearer(sessions.Login(right).tokens.access_token)
    uri = sessions.EnrollTotp(session.EnrollTotpRequest(password=password), metadata=me).uri
    confirm = session.ConfirmTotpRequest(code=totp(uri, -30))
    recovery = sessions.ConfirmTotp(confirm, metadata=me).recovery_codes
    assert len(set(recovery)) == 10
    refused(grpc.StatusCode.UNAUTHENTICATED, sessions.Login, right)
    with_code = session.LoginRequest(email=email, password=password, code=totp(uri))
    again = sessions.Login(with_code)
    assert claims_of(server.address, again.tokens.access_token)["amr"][0] == "pwd"
    refused(grpc.StatusCode.UNAUTHENTICATED, sessions.Login, with_code)

    # The history says all of it, and nothing by which anybody could log in, or be known.
    streams = audit(data)
    types = [event["type"] for event in streams[f"org-{acme}"]]
    for expected in ("UserInvited", "UserJoined", "SessionStarted", "SessionEnded"):
        assert expected in types, types
    text = json.dumps(streams)
    hidden = [email, password, invited.invitation_token, made.secret[9:], *recovery]
    hidden += [tokens.access_token, tokens.refresh_token, following.refresh_token]
    for secret in hidden:
        assert secret not in text
        assert hashlib.sha256(secret.encode()).hexdigest() not in text


def test_exports_are_read_by_others(protos, server, data):
    """The log as the standard library reads it: lines that hash to what is stored, a table
    without formulas, CloudEvents."""
    key, organization = protos.key, protos.organization
    keys = protos.key_grpc.KeyServiceStub(server.channel)
    organizations = protos.organization_grpc.OrganizationServiceStub(server.channel)
    log = protos.audit_grpc.AuditServiceStub(server.channel)
    operator = bearer((data / "admin.key").read_text().strip())
    acme = organizations.CreateOrganization(
        organization.CreateOrganizationRequest(name="acme", key_prefix="vtx"), metadata=operator
    ).organization.id
    names = ["plain", '=HYPERLINK("http://x")', "+1", "-1", "@SUM(A1)", 'a "quoted", name', "＝1"]
    for name in names:
        request = key.CreateKeyRequest(
            organization_id=acme, name=name, scopes=protos.common.Scopes(permissions=["a:b"])
        )
        keys.CreateKey(request, metadata=operator)

    def export(form, **named):
        request = protos.audit.ExportActivityRequest(organization_id=acme, format=form, **named)
        pieces = list(log.ExportActivity(request, metadata=operator, timeout=DEADLINE_S))
        assert pieces[0].HasField("begin") and pieces[-1].complete
        return b"".join(piece.data for piece in pieces)

    lines = export("EXPORT_FORMAT_JSON_LINES").splitlines()
    database = sqlite3.connect(f"file:{data / 'ledger.db'}?mode=ro", uri=True)
    hashes = database.execute(
        "SELECT leaf_hash FROM events JOIN streams USING (stream) WHERE name = ? ORDER BY revision",
        [f"org-{acme}"],
    ).fetchall()
    database.close()
    # Behind what was exported it is recorded who did.
    *exported, _reading = hashes
    assert [(hashlib.sha256(b"\x00" + line).digest(),) for line in lines] == exported
    end = len(lines) - 1

    text = export("EXPORT_FORMAT_CSV", up_to_revision=end).decode()
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    assert [row["event_id"] for row in rows] == [json.loads(line)["id"] for line in lines]
    formula = tuple("=+-@\t\r＝＋－＠")
    for row in rows:
        assert None not in row and None not in row.values(), "as many cells as columns"
        assert not any(cell.startswith(formula) for cell in row.values()), row
    shown = [row["target_name"] for row in rows[1:]]
    assert shown == [f"'{name}" if name.startswith(formula) else name for name in names]

    ocsf = export("EXPORT_FORMAT_OCSF_CLOUDEVENTS", up_to_revision=end)
    events = [json.loads(line) for line in ocsf.splitlines()]
    assert [event["data"]["metadata"]["uid"] for event in events] == [r["event_id"] for r in rows]
    for event, row in zip(events, rows):
        assert (event["specversion"], event["time"]) == ("1.0", row["at"])
        data_ = event["data"]
        assert data_["type_uid"] == data_["class_uid"] * 100 + data_["activity_id"]
        assert data_["src_endpoint"]["ip"] == row["origin_ip"] == "127.0.0.1"
