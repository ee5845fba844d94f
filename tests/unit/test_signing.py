"""Keys that sign access tokens: on disk, in rows, through rotations and emergencies."""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from sqlalchemy import select

from auth_service.signing import KNOWN_S, REFRESH_S, ROTATE_S, Signer
from modelyard.domain.accounts import ALL_SCOPES, Role
from modelyard.domain.errors import Invalid, NotFound, Unavailable
from modelyard.store import accounts, audit, doorbell
from modelyard.store.account_tables import SigningKeyRow
from modelyard.store.database import Database, sqlite_url
from modelyard.store.doorbell import Doorbell
from modelyard.store.tables import AuditRow
from modelyard.web.tokens import API, LEEWAY_S, Claims, TokenVerifier, payload_of

ACCESS_S = 600.0
KEPT_S = ACCESS_S + LEEWAY_S
START = 1_800_000_000.0


class House:
    """A database, a data folder, and a clock that the test moves."""

    def __init__(self, folder: Path, blank: Path) -> None:
        self.folder = folder
        self.now = START
        self.bell = Doorbell()
        shutil.copy(blank, folder / "modelyard.db")
        self.database = Database(sqlite_url(folder / "modelyard.db"), self.bell)

    def signer(self, folder: Path | None = None) -> Signer:
        return Signer(self.database, folder or self.folder, lambda: self.now, ACCESS_S, app_s=0)

    def verifier(self) -> TokenVerifier:
        """A process that has just refreshed."""
        made = TokenVerifier()
        self.refresh(made)
        return made

    def refresh(self, verifier: TokenVerifier) -> None:
        with self.database.read() as session:
            verifier.trust(accounts.public_keys(session, self.now))

    def rows(self) -> dict[str, SigningKeyRow]:
        with self.database.read() as session:
            return {row.kid: row for row in session.scalars(select(SigningKeyRow).order_by(SigningKeyRow.created_at))}

    def files(self) -> list[str]:
        return sorted(path.stem for path in (self.folder / "keys").iterdir())

    def payload(self) -> dict[str, object]:
        claims = Claims("a1", "ada", Role.MEMBER, ALL_SCOPES, 0, "s1", self.now + ACCESS_S)
        return payload_of(claims, API, self.now)

    def acts(self) -> list[tuple[str, str]]:
        with self.database.read() as session:
            assert audit.verify(session) is None
            return [(row.actor, row.action) for row in session.scalars(select(AuditRow).order_by(AuditRow.seq))]


@pytest.fixture
def house(tmp_path: Path, blank_database: Path) -> Iterator[House]:
    made = House(tmp_path, blank_database)
    yield made
    made.database.close()


def kid_of(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


def test_the_first_start_makes_one_key_whose_tokens_are_good_at_once(house: House) -> None:
    signer = house.signer()

    token = signer.sign(house.payload())
    claims = house.verifier().verify(token, API, house.now)
    assert claims is not None
    assert (claims.username, claims.key_id) == ("ada", kid_of(token))
    assert list(house.rows()) == house.files() == [kid_of(token)]
    assert house.acts() == [("modelyard", "key_published")]


def test_a_later_start_takes_the_same_key(house: House) -> None:
    first = kid_of(house.signer().sign(house.payload()))

    assert kid_of(house.signer().sign(house.payload())) == first
    assert house.files() == [first]


def test_the_private_half_is_a_file_for_its_user_alone_and_never_a_row(house: House) -> None:
    token = house.signer().sign(house.payload())
    path = house.folder / "keys" / f"{kid_of(token)}.pem"

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    jwk = house.rows()[kid_of(token)].jwk
    assert set(jwk) == {"kty", "crv", "x", "y", "kid", "alg", "use"}


def test_all_who_start_at_once_on_one_folder_share_one_key(house: House) -> None:
    with ThreadPoolExecutor(8) as pool:
        tokens = [signer.sign(house.payload()) for signer in pool.map(lambda _: house.signer(), range(8))]

    assert len({kid_of(token) for token in tokens}) == 1
    assert len(house.rows()) == len(house.files()) == 1


def test_a_rotation_publishes_first_signs_when_all_must_know_and_keeps_the_old_key_until_its_last_token_died(house: House) -> None:
    signer = house.signer()
    old = kid_of(signer.sign(house.payload()))
    knows_both_too_late = house.verifier()

    new = signer.rotate()
    assert max(2 * REFRESH_S, 10) <= KNOWN_S
    assert set(house.rows()) == {old, new}
    assert house.rows()[new].signs_from == house.now + KNOWN_S
    house.now += KNOWN_S - 0.1
    assert kid_of(signer.sign(house.payload())) == old
    house.now += 0.1
    assert kid_of(signer.sign(house.payload())) == new
    assert knows_both_too_late.verify(signer.sign(house.payload()), API, house.now) is None

    assert house.rows()[old].ends_at == START + KNOWN_S + KEPT_S
    signer.step()
    assert set(house.files()) == {old, new}
    house.now = START + KNOWN_S + KEPT_S
    signer.step()
    assert house.files() == [new]
    assert not house.verifier().trusts(old)


def test_the_last_token_of_the_old_key_lives_out_its_time(house: House) -> None:
    signer = house.signer()
    signer.rotate()
    house.now += KNOWN_S - 0.001
    last = signer.sign(house.payload())
    ends = house.now + ACCESS_S

    while house.now < ends + LEEWAY_S - 0.01:
        assert house.verifier().verify(last, API, house.now) is not None
        signer.step()
        house.now += 60
    house.now = ends + LEEWAY_S
    assert house.verifier().verify(last, API, house.now) is None


def test_asking_twice_for_a_rotation_makes_one_key(house: House) -> None:
    signer = house.signer()

    assert signer.rotate() == signer.rotate()
    assert len(house.rows()) == 2


def test_every_process_hears_of_a_new_key(house: House) -> None:
    signer = house.signer()
    seen = house.bell.count(doorbell.CREDENTIALS)

    signer.rotate(audit.Actor("root-user"))

    assert house.bell.count(doorbell.CREDENTIALS) > seen
    assert house.acts()[-1] == ("root-user", "key_published")


def test_a_key_of_ninety_days_is_followed_by_another_one_and_by_one_alone(house: House) -> None:
    here, there = house.signer(), house.signer()
    house.now += ROTATE_S - 1
    here.step()
    assert len(house.rows()) == 1

    house.now += 1
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda signer: signer.step(), [here, there, here, there]))

    assert len(house.rows()) == 2
    house.now += KNOWN_S
    assert kid_of(here.sign(house.payload())) == kid_of(there.sign(house.payload())) == list(house.rows())[-1]


def test_a_step_with_nothing_to_do_writes_nothing(house: House) -> None:
    signer = house.signer()
    before = len(house.acts())

    assert [signer.step() for _ in range(3)] == [False] * 3
    assert (len(house.acts()), len(house.rows())) == (before, 1)


def test_an_emergency_ends_a_key_at_once_and_another_takes_over(house: House) -> None:
    signer, verifier = house.signer(), house.verifier()
    token = signer.sign(house.payload())

    signer.drop(kid_of(token))

    house.refresh(verifier)
    assert verifier.verify(token, API, house.now) is None
    assert kid_of(token) not in house.files()
    with pytest.raises(Unavailable) as refused:
        signer.sign(house.payload())
    assert (refused.value.code, refused.value.retry_after_s) == ("signing_key_pending", KNOWN_S)
    house.now += KNOWN_S
    assert house.verifier().verify(signer.sign(house.payload()), API, house.now) is not None
    assert ("modelyard", "key_dropped") in house.acts()


def test_no_process_signs_with_a_key_that_another_one_dropped(house: House) -> None:
    here, there = house.signer(), house.signer()
    kid = kid_of(there.sign(house.payload()))

    here.drop(kid)

    with pytest.raises(Unavailable):
        there.sign(house.payload())
    house.now += KNOWN_S
    assert kid_of(there.sign(house.payload())) == kid_of(here.sign(house.payload())) != kid


def test_dropping_the_newest_key_falls_back_on_the_one_before_it_while_that_lives(house: House) -> None:
    signer = house.signer()
    old = kid_of(signer.sign(house.payload()))
    new = signer.rotate()
    house.now += KNOWN_S / 2

    signer.drop(new)

    assert kid_of(signer.sign(house.payload())) == old
    house.now += KNOWN_S
    assert kid_of(signer.sign(house.payload())) not in {old, new}


def test_dropping_twice_is_no_error_and_no_second_act_and_an_unknown_key_is_told(house: House) -> None:
    signer = house.signer()
    kid = kid_of(signer.sign(house.payload()))

    signer.drop(kid)
    signer.drop(kid)

    assert house.acts().count(("modelyard", "key_dropped")) == 1
    assert len(house.rows()) == 2
    with pytest.raises(NotFound):
        signer.drop("none")


def test_a_process_with_a_folder_of_its_own_signs_with_a_key_of_its_own_and_ends_nobody_elses(house: House, tmp_path: Path) -> None:
    here = house.signer()
    there = house.signer(tmp_path / "elsewhere")
    ours = kid_of(here.sign(house.payload()))

    with pytest.raises(Unavailable):
        there.sign(house.payload())
    house.now += KNOWN_S
    theirs = kid_of(there.sign(house.payload()))
    assert kid_of(here.sign(house.payload())) == ours != theirs

    there.rotate()
    assert house.rows()[ours].ends_at is None
    assert house.rows()[theirs].ends_at == house.now + KNOWN_S + KEPT_S
    both = house.verifier()
    assert both.verify(here.sign(house.payload()), API, house.now) is not None
    assert both.verify(there.sign(house.payload()), API, house.now) is not None


def test_a_key_whose_private_half_was_lost_with_its_folder_is_ended_in_the_end(house: House, tmp_path: Path) -> None:
    house.signer(tmp_path / "lost")
    lost = next(iter(house.rows()))
    signer = house.signer()

    for _ in range(3):
        house.now += ROTATE_S
        signer.step()

    assert house.rows()[lost].ends_at is not None


def test_a_lost_private_half_is_replaced(house: House) -> None:
    lost = kid_of(house.signer().sign(house.payload()))
    (house.folder / "keys" / f"{lost}.pem").unlink()

    signer = house.signer()
    house.now += KNOWN_S

    assert kid_of(signer.sign(house.payload())) != lost


def test_a_token_that_would_outlive_its_key_is_not_signed(house: House) -> None:
    with pytest.raises(ValueError, match="outlive"):
        house.signer().sign({**house.payload(), "exp": house.now + ACCESS_S + 1})
    with pytest.raises(ValueError, match="outlive"):
        house.signer().sign({"sub": "x"})


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_that_others_can_read_stops_the_start(house: House, mode: int) -> None:
    house.signer()
    path = next((house.folder / "keys").iterdir())
    path.chmod(mode)

    assert refusal(house) == ("signing_key_unsafe", f"Run: chmod 600 {path}")


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o755, 0o701])
def test_a_folder_of_keys_that_others_can_enter_stops_the_start(house: House, mode: int) -> None:
    house.signer()
    (house.folder / "keys").chmod(mode)

    assert refusal(house) == ("signing_key_unsafe", f"Run: chmod 700 {house.folder / 'keys'}")


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey, word: bytes | None = None) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(word) if word else NoEncryption())


WRONG: dict[str, tuple[str, Callable[[], bytes]]] = {
    "empty": ("signing_key_broken", lambda: b""),
    "no PEM": ("signing_key_broken", lambda: b"secret"),
    "cut off": ("signing_key_broken", lambda: pem(ec.generate_private_key(ec.SECP256R1()))[:80]),
    "encrypted": ("signing_key_broken", lambda: pem(ec.generate_private_key(ec.SECP256R1()), b"word")),
    "another key": ("signing_key_broken", lambda: pem(ec.generate_private_key(ec.SECP256R1()))),
    "P-384": ("signing_key_weak", lambda: pem(ec.generate_private_key(ec.SECP384R1()))),
    "P-192": ("signing_key_weak", lambda: pem(ec.generate_private_key(ec.SECP192R1()))),
    "secp256k1": ("signing_key_weak", lambda: pem(ec.generate_private_key(ec.SECP256K1()))),
    "RSA": ("signing_key_weak", lambda: pem(rsa.generate_private_key(65537, 2048))),
    "Ed25519": ("signing_key_weak", lambda: pem(ed25519.Ed25519PrivateKey.generate())),
    "the number 1": ("signing_key_weak", lambda: pem(ec.derive_private_key(1, ec.SECP256R1()))),
    "a number that can be guessed": ("signing_key_weak", lambda: pem(ec.derive_private_key(2**64 - 59, ec.SECP256R1()))),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_is_no_good_key_stops_the_start_and_stays_as_it_is(house: House, case: str) -> None:
    code, text = WRONG[case]
    house.signer()
    path = next((house.folder / "keys").iterdir())
    path.write_bytes(wrong := text())

    assert refusal(house) == (code, f"Run: rm {path} (the service makes another key, and its users log in again)")
    assert path.read_bytes() == wrong


def test_a_link_and_a_folder_in_the_place_of_a_key_stop_the_start(house: House) -> None:
    house.signer()
    path = next((house.folder / "keys").iterdir())
    path.rename(house.folder / "moved")
    path.symlink_to(house.folder / "moved")
    assert refusal(house)[0] == "signing_key_broken"

    path.unlink()
    path.mkdir()
    assert refusal(house)[0] == "signing_key_broken"


def test_a_pipe_in_the_place_of_a_key_stops_the_start_and_holds_nobody(house: House) -> None:
    house.signer()
    path = next((house.folder / "keys").iterdir())
    path.unlink()
    os.mkfifo(path, 0o600)

    assert refusal(house)[0] == "signing_key_broken"


def refusal(house: House) -> tuple[str, str]:
    with pytest.raises(Invalid) as refused:
        house.signer()
    assert "PRIVATE" not in refused.value.message
    return refused.value.code, refused.value.mend


def test_a_key_that_was_refused_can_be_removed_as_the_mend_says(house: House) -> None:
    house.signer()
    path = next((house.folder / "keys").iterdir())
    path.write_bytes(b"")
    refusal(house)

    path.unlink()
    signer = house.signer()
    house.now += KNOWN_S
    assert house.verifier().verify(signer.sign(house.payload()), API, house.now) is not None


def test_a_hundred_rotations_refuse_nobody_who_verifies_all_the_while(house: House, scaled: Callable[[int], int]) -> None:
    """Verifiers refresh as late as they may and tokens are used to their last second; not one is refused before its time."""
    signer = house.signer()
    late = [house.verifier() for _ in range(5)]
    alive: list[tuple[str, float]] = []
    refused = checked = 0
    done = Event()
    racing = house.verifier()

    def race() -> int:
        wrong = 0
        while not done.is_set():
            token = signer.sign(house.payload())
            house.refresh(racing)
            wrong += racing.verify(token, API, house.now) is None
        return wrong

    with ThreadPoolExecutor(1) as pool:
        raced = pool.submit(race)
        try:
            for second in range(scaled(100) * 12):
                house.now += 1
                if second % 12 == 0:
                    signer.rotate()
                alive = [(token, ends) for token, ends in alive if ends > house.now]
                alive.append((signer.sign(house.payload()), house.now + ACCESS_S))
                house.refresh(late[second % len(late)])
                picked = [alive[0], alive[-1], alive[second % len(alive)]]
                for verifier in late:
                    checked += len(picked)
                    refused += sum(verifier.verify(token, API, house.now) is None for token, _ in picked)
                signer.step()
        finally:
            done.set()
    assert (refused, raced.result()) == (0, 0)
    assert checked == scaled(100) * 12 * 15
    assert len(house.rows()) == scaled(100) + 1
