"""Keys: a name for every content."""

from mmd_ddm.runs.fingerprint import code_sha256, key_of


def test_keys_name_every_value():
    assert key_of(1, "a") == key_of(1, "a")
    others = {key_of(*about) for about in ((1, "a"), ("a", 1), (1, ["a"]), (1.5, "a"))}
    assert len(others) == 4
    assert len(code_sha256()) == 64
