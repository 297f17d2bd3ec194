"""What a file is, by how it begins: so that a refusal can say it in words."""

import re
from pathlib import Path

__all__ = ["READ", "damage", "kind_at", "kind_of"]

READ = "read are folders and zips of pictures, .parquet, .arrow, .tar, .npy, .npz and IDX"
_BEGINNINGS = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"BM": "a BMP picture",
    b"II*\0": "a TIFF picture",
    b"MM\0*": "a TIFF picture",
    b"8BPS": "a Photoshop picture",
    b"%PDF": "a PDF",
    b"%!PS": "a PostScript file",
    b"\x93NUMPY": "a NumPy array",
    b"\0\0\x08": "an IDX file",
    **{bytes([0, 0, code]): "an IDX file of no bytes" for code in (9, 11, 12, 13, 14)},
    b"\0\0\0\x0cjP": "a JPEG 2000 picture",
    b"PAR1": "a parquet table",
    b"ARROW1": "an Arrow table",
    b"\x89HDF": "an HDF5 file",
    b"PK": "a zip archive",
    b"\x1f\x8b": "a gzip file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
    b"version https://git-lfs": "a pointer of Git LFS, whose file was not fetched (git lfs pull)",
}
_BRANDS = {b"avif": "an AVIF picture", b"heic": "a HEIC picture", b"mif1": "a HEIC picture"}


def kind_of(content: bytes) -> str:
    """In words, with an article.

    Args:
        content: of the file, at least its first 512 bytes.
    """
    if not content:
        return "an empty file"
    for beginning, kind in _BEGINNINGS.items():
        if content.startswith(beginning):
            return kind
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "a WebP picture"
    if content[4:8] == b"ftyp":
        return _BRANDS.get(content[8:12], "a film")
    if content[257:262] == b"ustar":
        return "a tar archive"
    head = content[:400].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if b"<svg" in head:
        return "an SVG drawing"
    binary = re.search(rb"[\0-\x08\x0e-\x1f\x7f]", content[:400])
    return "a file of an unknown kind" if binary else "text"


def kind_at(path: Path) -> str:
    """`kind_of` the file there."""
    with path.open("rb") as file:
        return kind_of(file.read(512))


def damage(error: Exception) -> str:
    """What a library says of a file, in one line, without the names of its own objects."""
    said = error.args[0] if error.args and isinstance(error.args[0], str) else error
    text = " ".join(str(said).split()) or type(error).__name__
    return re.sub(r"<[^<>]* at 0x[0-9a-f]+>", "it", text)[:200]
