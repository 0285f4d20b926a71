"""MTCNN on facenet-pytorch's three networks: the same faces, found several times faster.

What was slow: a picture was shown level by level in a memory format that PyTorch's pooling is slow in, and levels and
crops were scaled by it too. Here all levels of a picture lie on one canvas, scaled by OpenCV, channels last.

Axes: B pictures of one size, N windows, H x W pixels of a canvas, I x J places of P-Net's window on it.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from idia_core.face_detection import Box, DetectorConfig, Face, clipped, largest_first, least_side

if TYPE_CHECKING:
    from torch import Tensor

WINDOW, STRIDE = 12, 2
"""Pixels of P-Net's window, and from one to the next."""
CUDA_BATCH, CUDA_CROPS = 32, 4096
"""Pictures whose canvases, and crops, a GPU is shown at once. A CPU is shown one picture's."""
WITHIN_LEVEL, ACROSS, BETWEEN_NEIGHBOURS = 0.5, 0.7, 0.7
"""Overlaps from which the lower score goes: facenet-pytorch's."""
Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
Halves = list[Bytes]
"""A picture, and it at 1/2, 1/4 and so on."""


class Level(NamedTuple):
    """Where a scaled copy of the picture lies on the canvas; all four are even, for P-Net steps by two."""

    x: int
    y: int
    width: int
    height: int


class Layout(NamedTuple):
    """How the levels of a picture lie on one canvas. `level_IJ` is whose a window is there, -1 across two of them."""

    levels: tuple[Level, ...]
    width: int
    height: int
    level_IJ: Integers


class Windows(NamedTuple):
    """Places in pictures where there may be faces: corners [N, 4], scores [N], and whose they are [N]."""

    corners_N4: Floats
    scores_N: Floats
    owners_N: Integers

    def of(self, which: npt.NDArray[Any]) -> "Windows":
        """Those that an index or a mask says."""
        return Windows(self.corners_N4[which], self.scores_N[which], self.owners_N[which])


class Mtcnn:
    """Detects faces with P-Net, R-Net and O-Net, whose weights come with facenet-pytorch.

    On a CPU each picture is worked on by itself, in one thread: its faces have the same bits whatever else is in the
    batch. On a GPU, equal sizes are shown together, in half precision, and the last bits may depend on neighbours.
    """

    name = "mtcnn"

    def __init__(self, config: DetectorConfig, device: str = "cpu") -> None:
        import torch  # noqa: PLC0415 - heavy
        from facenet_pytorch.models.mtcnn import ONet, PNet, RNet  # noqa: PLC0415

        if device == "cpu":
            torch.set_num_threads(1)
        self._config, self._device = config, device
        self._pnet, self._rnet, self._onet = (
            network().eval().to(device, memory_format=torch.channels_last) for network in (PNet, RNet, ONet)
        )

    def longest_side(self) -> int | None:
        """What the config says."""
        return self._config.longest_side

    def detect(self, pictures: Sequence[Image.Image], scales: Sequence[float] | None = None) -> list[list[Face]]:
        """The faces of each picture, the largest first; see `Detector`."""
        import torch  # noqa: PLC0415

        faces: list[list[Face]] = [[] for _ in pictures]
        autocast = torch.autocast(self._device.partition(":")[0], enabled=self._device != "cpu")
        with torch.inference_mode(), autocast:
            for least, places in self._groups(pictures, scales):
                group = [np.asarray(pictures[place]) for place in places]
                for place, found in zip(places, self._of_equal_size(group, least), strict=True):
                    faces[place] = found
        return faces

    def _groups(
        self, pictures: Sequence[Image.Image], scales: Sequence[float] | None
    ) -> Iterator[tuple[float, list[int]]]:
        """Places of pictures that are shown together, and the least side of a face in them."""
        groups = dict[tuple[tuple[int, int], float], list[int]]()
        for place, picture in enumerate(pictures):
            least = least_side(self._config.min_face, scales[place] if scales else 1)
            groups.setdefault((picture.size, least), []).append(place)
        most = 1 if self._device == "cpu" else CUDA_BATCH
        for (_, least), places in groups.items():
            for start in range(0, len(places), most):
                yield least, places[start : start + most]

    def _of_equal_size(self, pictures: list[Bytes], least: float) -> list[list[Face]]:
        height, width, _ = pictures[0].shape
        layout = lay_out(width, height, least, self._config.pyramid_factor)
        if not layout.levels:
            return [[] for _ in pictures]
        halved = [_halves(picture) for picture in pictures]
        windows = self._refined(halved, self._proposed(halved, layout))
        faces: list[list[Face]] = [[] for _ in pictures]
        for corners, score, owner in zip(*(part.tolist() for part in windows), strict=True):
            left, top, right, bottom = map(round, corners)
            if (box := clipped(Box(left, top, right - left, bottom - top), width, height)) is not None:
                faces[owner].append(Face(box, round(score, 6)))
        return [largest_first(found) for found in faces]

    def _proposed(self, pictures: list[Halves], layout: Layout) -> Windows:
        """P-Net's windows, made square."""
        canvases = np.stack([_canvas(picture, layout) for picture in pictures])
        moves_B4IJ, chances_B2IJ = self._run(self._pnet, canvases)
        hit = (chances_B2IJ[:, 1] >= self._config.mtcnn_thresholds[0]) & (layout.level_IJ >= 0)
        owners_N, rows_N, columns_N = np.nonzero(hit)
        levels_N = layout.level_IJ[rows_N, columns_N]
        height, width, _ = pictures[0][0].shape
        corners_N4 = _corners(np.stack([columns_N, rows_N], axis=1), levels_N, layout, (width, height))
        windows = Windows(corners_N4, chances_B2IJ[owners_N, 1, rows_N, columns_N], owners_N)
        moves_N4 = moves_B4IJ[owners_N, :, rows_N, columns_N]
        kept = _kept(windows, WITHIN_LEVEL, owners_N * len(layout.levels) + levels_N)
        kept = kept[_kept(windows.of(kept), ACROSS)]
        moved_N4 = _moved(corners_N4[kept], moves_N4[kept], 0)
        return windows.of(kept)._replace(corners_N4=_squared(moved_N4))

    def _refined(self, pictures: list[Halves], windows: Windows) -> Windows:
        """What R-Net and then O-Net leave of P-Net's windows."""
        windows, moves_N4 = self._judged(self._rnet, _crops(pictures, windows, 24), self._config.mtcnn_thresholds[1])
        kept = _kept(windows, ACROSS)
        squares_N4 = _squared(_moved(windows.corners_N4[kept], moves_N4[kept], 1))
        windows = windows.of(kept)._replace(corners_N4=squares_N4)
        windows, moves_N4 = self._judged(self._onet, _crops(pictures, windows, 48), self._config.mtcnn_thresholds[2])
        windows = windows._replace(corners_N4=_moved(windows.corners_N4, moves_N4, 1))
        return windows.of(_kept_beside_smaller(windows))

    def _judged(self, network: Any, crops: tuple[Windows, Bytes], threshold: float) -> tuple[Windows, Floats]:
        """The windows whose chance of a face is above the threshold, and how they should move."""
        windows, pixels = crops
        if not len(pixels):
            return windows, np.empty((0, 4), np.float32)
        moves_N4, *_, chances_N2 = self._run(network, pixels)
        likely: npt.NDArray[np.bool_] = chances_N2[:, 1] > threshold
        return windows._replace(scores_N=chances_N2[:, 1]).of(likely), moves_N4[likely]

    def _run(self, network: Any, pixels: Bytes) -> tuple[Floats, ...]:
        """A network's answers to pictures [B, H, W, 3], of which there must be some."""
        import torch  # noqa: PLC0415

        parts = [pixels[start : start + CUDA_CROPS] for start in range(0, len(pixels), CUDA_CROPS)]
        answers = [network(self._as_input(part)) for part in parts]
        return tuple(torch.cat(part).float().cpu().numpy() for part in zip(*answers, strict=True))

    def _as_input(self, pixels: Bytes) -> "Tensor":
        import torch  # noqa: PLC0415

        pixels_BHWC = torch.from_numpy(pixels)
        if self._device != "cpu":
            pixels_BHWC = pixels_BHWC.pin_memory().to(self._device, non_blocking=True)
        # The view is already channels last in memory, and stays so.
        return (pixels_BHWC.permute(0, 3, 1, 2).float() - 127.5) * 0.0078125


@lru_cache(maxsize=256)
def lay_out(width: int, height: int, least: float, factor: float) -> Layout:
    """The levels on which a window of 12 pixels is a face of `least` and more, and their places on a canvas.

    The largest is on top. Those after it fill free places below, so that the canvas is hardly larger than they all are.
    """
    sizes, scale = list[tuple[int, int]](), WINDOW / least
    while min(width, height) * scale >= WINDOW:
        sizes.append((_even(width * scale), _even(height * scale)))
        scale *= factor
    if not sizes:
        return Layout((), 0, 0, np.empty((0, 0), np.int64))
    wide, free, levels, bottom = sizes[0][0], [(0, 0, sizes[0][0], 1 << 30)], list[Level](), 0
    for level_width, level_height in sizes:
        place = next(place for place in free if place[2] >= level_width and place[3] >= level_height)
        x, y, room, deep = place
        free.remove(place)
        free += [
            (x + level_width, y, room - level_width, level_height),
            (x, y + level_height, room, deep - level_height),
        ]
        levels.append(Level(x, y, level_width, level_height))
        bottom = max(bottom, y + level_height)
    return Layout(tuple(levels), wide, bottom, _whose(levels, wide, bottom))


def _even(pixels: float) -> int:
    return max(WINDOW, 2 * int(pixels / 2 + 1))


def _whose(levels: Sequence[Level], width: int, height: int) -> Integers:
    level_IJ = np.full(((height - WINDOW) // STRIDE + 1, (width - WINDOW) // STRIDE + 1), -1)
    for i, (x, y, level_width, level_height) in enumerate(levels):
        rows, columns = (level_height - WINDOW) // STRIDE + 1, (level_width - WINDOW) // STRIDE + 1
        level_IJ[y // STRIDE : y // STRIDE + rows, x // STRIDE : x // STRIDE + columns] = i
    return level_IJ


def _halves(picture: Bytes) -> Halves:
    """The picture, half of it, a quarter and so on: large windows are scaled faster from a smaller one."""
    halves = [picture]
    while min(halves[-1].shape[:2]) >= 4 * WINDOW:
        height, width = (side // 2 for side in halves[-1].shape[:2])
        even = halves[-1][: 2 * height, : 2 * width]
        halves.append(_scaled(even, width, height))
    return halves


def _scaled(pixels: Bytes, width: int, height: int) -> Bytes:
    scaled: Any = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(scaled, np.uint8)


def _canvas(picture: Halves, layout: Layout) -> Bytes:
    canvas, largest = np.zeros((layout.height, layout.width, 3), np.uint8), layout.levels[0]
    source = [half for half in picture if half.shape[1] >= largest.width or half is picture[0]][-1]
    for place, (x, y, width, height) in enumerate(layout.levels):
        scaled = _scaled(source, width, height)
        canvas[y : y + height, x : x + width] = scaled
        source = source if place else scaled  # all the smaller ones are made of the largest
    return canvas


def _corners(places_N2: Integers, levels_N: Integers, layout: Layout, size: tuple[int, int]) -> Floats:
    """Where in the picture P-Net's windows are: [N, 4]."""
    levels = np.array(layout.levels)[levels_N]
    scales_N2 = levels[:, 2:] / np.array(size)
    starts_N2 = STRIDE * places_N2 - levels[:, :2]
    corners = np.floor((starts_N2 + 1) / scales_N2), np.floor((starts_N2 + WINDOW) / scales_N2)
    return np.concatenate(corners, axis=1).astype(np.float32)


def _moved(corners_N4: Floats, moves_N4: Floats, more: int) -> Floats:
    """The windows moved by shares of their sides; `more` is 1 where the networks count both ends of a side."""
    sides_N2 = corners_N4[:, 2:] - corners_N4[:, :2] + np.float32(more)
    return corners_N4 + moves_N4 * np.tile(sides_N2, 2)


def _squared(corners_N4: Floats) -> Floats:
    """Squares as large as the longer side, with the same centre."""
    sides_N2 = corners_N4[:, 2:] - corners_N4[:, :2]
    longest_N1 = sides_N2.max(axis=1, initial=-np.inf, keepdims=True)
    starts_N2 = corners_N4[:, :2] + (sides_N2 - longest_N1) * np.float32(0.5)
    return np.concatenate([starts_N2, starts_N2 + longest_N1], axis=1)


def _crops(pictures: list[Halves], windows: Windows, side: int) -> tuple[Windows, Bytes]:
    """The windows that have pixels in their pictures, and these pixels [N, side, side, 3]."""
    height, width, _ = pictures[0][0].shape
    bounds_N4 = np.trunc(windows.corners_N4).astype(np.int64)
    bounds_N4[:, :2] = np.maximum(bounds_N4[:, :2] - 1, 0)
    bounds_N4[:, 2:] = np.minimum(bounds_N4[:, 2:], (width, height))
    inside: npt.NDArray[np.bool_] = np.all(bounds_N4[:, 2:] > bounds_N4[:, :2], axis=1)
    windows, bounds = windows.of(inside), bounds_N4[inside].tolist()
    crops = np.empty((len(bounds), side, side, 3), np.uint8)
    for crop, owner, (left, top, right, bottom) in zip(crops, windows.owners_N.tolist(), bounds, strict=True):
        halvings = min(max(min(right - left, bottom - top) // side, 1).bit_length(), len(pictures[owner])) - 1
        rows, columns = slice(top >> halvings, bottom >> halvings), slice(left >> halvings, right >> halvings)
        pixels = pictures[owner][halvings][rows, columns]
        cv2.resize(pixels, (side, side), crop, interpolation=cv2.INTER_AREA)
    return windows, crops


def _kept(windows: Windows, overlap: float, groups_N: Integers | None = None) -> Integers:
    """The windows left of each group (picture) when none overlaps a likelier one by more, the likeliest first."""
    import torch  # noqa: PLC0415
    from torchvision.ops import batched_nms  # noqa: PLC0415

    groups = torch.from_numpy(windows.owners_N if groups_N is None else groups_N)
    corners, scores = torch.from_numpy(windows.corners_N4), torch.from_numpy(windows.scores_N)
    kept: Integers = batched_nms(corners, scores, groups, overlap).numpy()
    return kept


def _kept_beside_smaller(windows: Windows) -> Integers:
    """As `_kept`, where the overlap is a share of the smaller of two, so that no face is left within another."""
    corners_N4 = windows.corners_N4
    areas_N = np.prod(corners_N4[:, 2:] - corners_N4[:, :2] + 1, axis=1)
    kept = list[int]()
    for place in np.argsort(-windows.scores_N, kind="stable").tolist():
        mine = [other for other in kept if windows.owners_N[other] == windows.owners_N[place]]
        ends_K2 = np.minimum(corners_N4[mine, 2:], corners_N4[place, 2:])
        starts_K2 = np.maximum(corners_N4[mine, :2], corners_N4[place, :2])
        shared_K = np.prod(np.maximum(ends_K2 - starts_K2 + 1, 0), axis=1)
        if (shared_K <= BETWEEN_NEIGHBOURS * np.minimum(areas_N[mine], areas_N[place])).all():
            kept.append(place)
    return np.array(kept, np.int64)
