"""What stands in for the decoder in worker processes: an object's text says what becomes of it, or of the process that looks at it."""

import os
import signal
import time

import numpy as np

from pipeline_project.imaging import ImageRejectedError
from pipeline_project.ingest.decoding.examine import Examined
from pipeline_project.settings import Settings


class TextExaminer:
    """ "7" is a grey image of brightness 7; a word does what it says."""

    def __init__(self, settings: Settings) -> None:
        self.size = settings.image.size

    def __call__(self, data: bytes) -> Examined:
        text = data.decode()
        if text == "reject":
            raise ImageRejectedError("corrupt", "it says so")
        if text == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if text == "hang":
            time.sleep(600)
        if text == "eat":
            hold = [bytearray(64 << 20) for _ in range(1000)]
            raise AssertionError(f"{len(hold)} blocks were to be had")
        if text == "leave":
            os._exit(3)
        if text == "fault":
            raise RuntimeError("a fault of the program")
        if text.startswith("slow"):
            time.sleep(0.01)
        value = int(text.removeprefix("slow"))
        pixels = np.full((self.size, self.size, 3), value, np.uint8)
        return Examined("TEXT", "L", value + 1, 2, ("odd",) if value % 2 else (), None, pixels, self.size)
