"""Signs what nobody should accept: keys of the wrong kind, secrets that are public, and signatures that are bent."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from functools import cache

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the curve P-256 (SEC 2)."""
FIELD = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def encoded(content: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def raw(key: ec.EllipticCurvePrivateKey, message: bytes, digest: hashes.HashAlgorithm | None = None) -> bytes:
    """An ECDSA signature as JWS wants it: r and s, each as long as the curve's order."""
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(digest or hashes.SHA256())))
    size = (key.curve.key_size + 7) // 8
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def jwk(key: ec.EllipticCurvePrivateKey, kid: str) -> dict[str, object]:
    """The public half as a JWK."""
    return {**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "alg": "ES256", "use": "sig"}


def by_other_key(kind: str, message: bytes) -> bytes:
    """The signature of a key that is not ours, of this kind."""
    key = _other(kind)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    if isinstance(key, rsa.RSAPrivateKey):
        filled = padding.PSS(padding.MGF1(hashes.SHA256()), 32) if kind == "rsa pss" else padding.PKCS1v15()
        return key.sign(message, filled, hashes.SHA256())
    return raw(key, message)


def stranger() -> ec.EllipticCurvePrivateKey:
    """The attacker's own key, of the right curve."""
    key = _other("stranger")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


@cache
def _other(kind: str) -> ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey:
    curves: dict[str, ec.EllipticCurve] = {"p384": ec.SECP384R1(), "p521": ec.SECP521R1(), "secp256k1": ec.SECP256K1()}
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1() if kind == "stranger" else curves[kind])


def by_secret(kind: str, key: ec.EllipticCurvePrivateKey, kid: str, message: bytes) -> bytes:
    """The HMAC whose secret is a spelling of our public key: what a verifier that lets the header choose would take."""
    public = key.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    secrets = {
        "pem": pem,
        "pem 384": pem,
        "pem without its last line end": pem.rstrip(),
        "der": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "jwk": json.dumps(jwk(key, kid)).encode(),
        "point": point,
        "x": point[1:33],
        "kid": kid.encode(),
        "empty": b"",
        "word": b"secret",
    }
    return hmac.new(secrets[kind], message, hashlib.sha384 if kind.endswith("384") else hashlib.sha256).digest()


def bent(how: str, key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """Our own signature of the message, made wrong in this way."""
    good = raw(key, message)
    r, s = good[:32], good[32:]
    header, _, payload = message.partition(b".")
    number: Callable[[int], bytes] = lambda value: value.to_bytes(32, "big")  # noqa: E731 - a name for one expression of the table
    made: dict[str, Callable[[], bytes]] = {
        "zero": lambda: bytes(64),
        "r is 0": lambda: bytes(32) + s,
        "s is 0": lambda: r + bytes(32),
        "r and s are n": lambda: number(ORDER) * 2,
        "r is n": lambda: number(ORDER) + s,
        "s is n": lambda: r + number(ORDER),
        "r and s are 1": lambda: number(1) * 2,
        "r and s are p": lambda: number(FIELD) * 2,
        "r and s are ff": lambda: b"\xff" * 64,
        "der": lambda: key.sign(message, ec.ECDSA(hashes.SHA256())),
        "short by one byte": lambda: good[:-1],
        "long by one byte": lambda: good + b"\0",
        "begins with a zero byte": lambda: b"\0" + good,
        "halves swapped": lambda: s + r,
        "first bit flipped": lambda: bytes([good[0] ^ 0x80]) + good[1:],
        "last bit flipped": lambda: good[:-1] + bytes([good[-1] ^ 1]),
        "one byte": lambda: good[:1],
        "512 bytes": lambda: good * 8,
        "of another payload": lambda: raw(key, header + b".e30"),
        "of another header": lambda: raw(key, b"e30." + payload),
        "of the payload alone": lambda: raw(key, payload),
        "of the decoded parts": lambda: raw(key, _decoded(header) + b"." + _decoded(payload)),
        "with SHA-1": lambda: raw(key, message, hashes.SHA1()),  # noqa: S303 - an attack
        "with SHA-384": lambda: raw(key, message, hashes.SHA384()),
        "with SHA-512": lambda: raw(key, message, hashes.SHA512()),
        "with SHA3-256": lambda: raw(key, message, hashes.SHA3_256()),
    }
    return made[how]()


def in_second_form(token: str) -> str:
    """The same token by the other signature that is good for it, which everybody can make who has the first."""
    message, _, signature = token.rpartition(".")
    pair = _decoded(signature.encode())
    return f"{message}.{encoded(pair[:32] + (ORDER - int.from_bytes(pair[32:], 'big')).to_bytes(32, 'big'))}"


def in_both_alphabets(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """A good signature whose base64url is not its base64 (nearly every one is such)."""
    signature = raw(key, message)
    while not {"-", "_"} & set(encoded(signature)):
        signature = raw(key, message)
    return signature


def with_stray_bits(part: str) -> str:
    """Another text that a lenient decoder takes for the same bytes; the part has bits to spare."""
    return part[:-1] + LETTERS[LETTERS.index(part[-1]) ^ 1]


def _decoded(part: bytes) -> bytes:
    return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
