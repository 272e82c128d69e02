"""Convert high dynamic range and wide gamut to SDR (BT.709, BT.1886).

Sources: ITU-R BT.2100-2 (PQ, after SMPTE ST 2084, and HLG with its OOTF at 1000 cd/m2), ITU-R BT.2408 (diffuse white
is 203 cd/m2: 58 % of PQ, 75 % of HLG; mapping by display light), ITU-R BT.2087 (primaries). Below KNEE the light of
diffuse white is white: the picture equals an SDR recording. Above it, highlights are rolled off to white.
"""

import functools

import numpy as np

PQ, HLG = 16, 18
"""AVColorTransferCharacteristic."""
WHITE = 203.0
"""Diffuse white, cd/m2."""
HLG_PEAK, HLG_GAMMA = 1000.0, 1.2
KNEE = 0.75
"""Multiple of diffuse white."""
SDR_GAMMA = 2.4
"""BT.1886 with a black of 0."""
FULL_SCALE = 255 << 8
"""White in the 16 bits that swscale returns."""
PRIMARIES = {
    # by AVColorPrimaries: chromaticities of red, green and blue
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),  # BT.2020
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # P3, with its white taken as D65
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # P3-D65, Display P3
}
BT709 = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
D65 = (0.3127, 0.3290)


def needs_conversion(transfer: int, primaries: int) -> bool:
    return transfer in (PQ, HLG) or primaries in PRIMARIES


def to_sdr(picture: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    """RGB uint16 (H, W, 3), FULL_SCALE = 100 % of the signal, to RGB uint8 (H, W, 3) of BT.709.

    transfer: PQ, HLG, or any other for a gamma of 2.4; primaries: a key of PRIMARIES, or any other for BT.709 (BT.2020
    with PQ and HLG).
    """
    import cv2

    is_hdr = transfer in (PQ, HLG)
    light = _light_of_signal(transfer)[picture]  # (H, W, 3)
    if transfer == HLG:
        luminance = cv2.transform(light, np.array([[0.2627, 0.6780, 0.0593]], np.float32))  # (H, W)
        light *= cv2.merge([cv2.pow(luminance, HLG_GAMMA - 1) * np.float32(HLG_PEAK / WHITE)] * 3)
    primaries = 9 if is_hdr and primaries not in (*PRIMARIES, 1) else primaries
    if primaries in PRIMARIES:
        light = cv2.transform(light, _to_bt709(primaries))  # (H, W, 3)
    light = np.maximum(light, 0)
    if is_hdr:
        red, green, blue = cv2.split(light)
        brightest = cv2.max(cv2.max(red, green), blue)  # (H, W)
        excess = np.maximum(brightest - np.float32(KNEE), 0)
        rolled_off = np.float32(KNEE) + np.float32(1 - KNEE) * (1 - np.exp(excess / np.float32(KNEE - 1)))
        scale = np.where(excess > 0, rolled_off / np.maximum(brightest, np.float32(KNEE)), np.float32(1))
        light *= cv2.merge([scale] * 3)
    return np.round(cv2.pow(np.minimum(light, 1), 1 / SDR_GAMMA) * 255).astype(np.uint8)


@functools.cache
def _light_of_signal(transfer: int) -> np.ndarray:
    """float32 (65536,), diffuse white = 1; for HLG the scene light, peak = 1."""
    signal = np.minimum(np.arange(65536) / FULL_SCALE, 1.0)
    if transfer == PQ:
        return (pq_eotf(signal) / WHITE).astype(np.float32)
    if transfer == HLG:
        return hlg_inverse_oetf(signal).astype(np.float32)
    return (signal**SDR_GAMMA).astype(np.float32)


def pq_eotf(signal: np.ndarray) -> np.ndarray:
    """cd/m2 of a PQ signal in [0, 1] (SMPTE ST 2084, BT.2100 table 4)."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    power = signal ** (1 / m2)
    return 10000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)


def hlg_inverse_oetf(signal: np.ndarray) -> np.ndarray:
    """Scene light in [0, 1] of an HLG signal in [0, 1] (BT.2100 table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((np.maximum(signal, 0.5) - c) / a) + b) / 12)


@functools.cache
def _to_bt709(primaries: int) -> np.ndarray:
    """float32 (3, 3): linear RGB of these primaries to linear RGB of BT.709."""
    matrix = np.linalg.inv(_to_xyz(BT709)) @ _to_xyz(PRIMARIES[primaries])
    return matrix.astype(np.float32)


def _to_xyz(chromaticities: tuple[tuple[float, float], ...]) -> np.ndarray:
    """float64 (3, 3): linear RGB to XYZ, such that RGB (1, 1, 1) is D65."""
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in (*chromaticities, D65)]).T  # (3, 4)
    return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])
