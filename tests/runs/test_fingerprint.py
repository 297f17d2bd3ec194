"""Names of computations: another value, another name."""

from mmd_ddm.runs.fingerprint import code_sha256, key_of


def test_keys_name_every_value():
    assert key_of(1, "a") == key_of(1, "a")
    others = {key_of(*about) for about in ((1, "a"), ("a", 1), (1, ["a"]), (1.5, "a"))}
    assert len(others) == 4
    assert all(len(key) == 32 for key in others)


def test_the_code_has_one_name():
    assert len(code_sha256()) == 64
    assert code_sha256() == code_sha256()
