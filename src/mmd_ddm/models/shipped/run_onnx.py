"""Draw with model.onnx, numpy and onnxruntime alone: python run.py [N] [SEED] -> images.png."""

import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import onnxruntime

onnxruntime.set_default_logger_severity(3)
n, seed = int((sys.argv[1:] or ["16"])[0]), int((sys.argv[2:] or ["0"])[0])
session = onnxruntime.InferenceSession(Path(__file__).with_name("model.onnx"))
channels, height, width = session.get_inputs()[0].shape[1:]
noise = np.random.default_rng(seed).standard_normal((n, channels, height, width), np.float32)
given: dict[str, np.ndarray] = {"noise": noise}
if len(session.get_inputs()) > 1:  # a model with classes draws them by turns
    given["label"] = np.arange(n) % int(session.get_modelmeta().custom_metadata_map["classes"])
images = session.run(None, given)[0]  # uint8, [n, channels, height, width]

side = int(np.ceil(n**0.5))
sheet = np.zeros((side * side, height, width, channels), np.uint8)
sheet[:n] = images.transpose(0, 2, 3, 1)
rows = sheet.reshape(side, side, height, -1).swapaxes(1, 2).reshape(side * height, -1)
size = struct.pack(">IIBBBBB", side * width, side * height, 8, 2 * (channels == 3), 0, 0, 0)
with Path("images.png").open("wb") as file:
    file.write(b"\x89PNG\r\n\x1a\n")
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    for body in (b"IHDR" + size, b"IDAT" + pixels, b"IEND"):
        file.write(struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)))
