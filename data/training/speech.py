"""Speech of sixteen voices by espeak-ng, and its log-mel features: made when the sample is made, never stored."""

from __future__ import annotations

import io
import subprocess
import wave
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["SENTENCES", "VOICES", "Speak", "Voice", "espeak", "espeak_version", "log_mel"]

Floats = npt.NDArray[np.float32]
RATE = 22_050  # what espeak-ng writes
FRAME, HOP, BANDS = 512, 220, 40  # about 23 ms every 10 ms


@dataclass(frozen=True)
class Voice:
    """A speaker: an espeak-ng voice with variant, its pitch (0 to 99) and its speed in words a minute."""

    name: str
    pitch: int
    speed: int


#: Makes the waveform of a sentence (float32 in -1..1 at `RATE`); espeak-ng in earnest, something small in tests.
Speak = Callable[[Voice, str], Floats]

VOICES = (
    Voice("en+m1", 38, 150),
    Voice("en+m3", 25, 165),
    Voice("en+m5", 50, 140),
    Voice("en+m7", 15, 155),
    Voice("en+f1", 60, 160),
    Voice("en+f2", 75, 150),
    Voice("en+f4", 45, 170),
    Voice("en+f5", 88, 145),
    Voice("en-us+m2", 30, 160),
    Voice("en-us+f3", 70, 165),
    Voice("en-gb-scotland+m4", 45, 150),
    Voice("en-gb-scotland+f1", 80, 155),
    Voice("en-us+klatt2", 40, 150),
    Voice("en+croak", 20, 145),
    Voice("en+whisper", 50, 150),
    Voice("en-gb-x-rp+m6", 55, 160),
)

SENTENCES = (
    "The ferry to the island leaves at seven in the morning.",
    "Please put the green boxes next to the kitchen door.",
    "Nobody had expected so much rain in the first week of May.",
    "Our neighbours keep three goats and a very old horse.",
    "She read the letter twice before she answered the phone.",
    "A thin layer of ice covered the pond behind the school.",
    "He measured the shelf again and found it was too short.",
    "Four of the five windows were open when we came home.",
    "The orchestra will practise in the town hall on Thursday.",
    "Turn left after the bridge and follow the narrow road.",
    "My brother bought a yellow bicycle with a broken bell.",
    "The soup needs more salt and perhaps a little pepper.",
    "Seventeen people were waiting for the last bus to the coast.",
    "An owl sat on the chimney and watched the empty yard.",
    "We should plant the onions before the ground gets dry.",
    "The museum shows how paper was made in those days.",
    "Could you bring a lamp and some batteries for the tent?",
    "They painted the boat blue and gave it a new name.",
    "The doctor asked whether the cough was worse at night.",
    "Every spring the river carries sand into the harbour.",
)


def espeak(voice: Voice, sentence: str) -> Floats:
    """The sentence as espeak-ng says it; raises FileNotFoundError where espeak-ng is not installed."""
    command = ["espeak-ng", "-v", voice.name, "-p", str(voice.pitch), "-s", str(voice.speed), "--stdout", sentence]
    spoken = subprocess.run(command, check=True, capture_output=True)
    if spoken.stderr:
        raise ValueError(f"espeak-ng on voice {voice.name}: {spoken.stderr.decode(errors='replace').strip()}")
    with wave.open(io.BytesIO(spoken.stdout)) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (RATE, 1, 2):
            raise ValueError(f"espeak-ng wrote {file.getparams()}, expected {RATE} Hz, one channel, 16 bit")
        samples = np.frombuffer(file.readframes(2**30), dtype="<i2")  # a pipe's header gives no true length
    return samples.astype(np.float32) / 32768.0


def espeak_version() -> str:
    """First line of `espeak-ng --version` without its paths."""
    said = subprocess.run(["espeak-ng", "--version"], check=True, capture_output=True, text=True).stdout
    return said.split(" Data at")[0].strip()


def _mel_filters() -> Floats:
    """Triangles of equal width on the mel scale (O'Shaughnessy 1987: 2595 log10(1 + f / 700)), 60 Hz to 8 kHz."""
    low, high = (2595.0 * np.log10(1.0 + f / 700.0) for f in (60.0, 8000.0))
    edges = 700.0 * (10.0 ** (np.linspace(low, high, BANDS + 2) / 2595.0) - 1.0)
    frequencies = np.fft.rfftfreq(FRAME, 1.0 / RATE)
    rising = (frequencies[None, :] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies[None, :]) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


_FILTERS = _mel_filters()


def log_mel(waveform: Floats) -> Floats:
    """Log-mel energies of shape (frames, 40), each band with its mean over the utterance taken off.

    Raises ValueError for a waveform shorter than one frame.
    """
    if len(waveform) < FRAME:
        raise ValueError(f"a waveform of {len(waveform)} samples is shorter than one frame of {FRAME}")
    frames = np.lib.stride_tricks.sliding_window_view(waveform, FRAME)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(FRAME), axis=1)) ** 2
    energies = np.log(power @ _FILTERS.T + 1e-6)
    return np.asarray(energies - energies.mean(axis=0), dtype=np.float32)
