"""The default augmentation: random views of astronomical images.

All images of a batch are resampled at once on their device, each with its own random
numbers.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from astromorph.settings.sections import AugmentationSettings

TOLERANCE = 1e-3  # allowed below 0 and above 1, for rounding and resampling
MIN_SIDE = 32  # pixels; in larger images the median uses a quarter of the pixels


class SkyAugmentation:
    """Flip, rotate, scale and shift in one resampling; change brightness, blur, noise.

    Images are mirrored beyond their edges, so that views have no empty corners.

    Parameters
    ----------
    settings : AugmentationSettings, optional
        Strength of each change. The default is that of the workflow.
    generator : torch.Generator, optional
        Source of all random numbers, on the CPU. The default is torch's global
        generator. Only pixel noise is drawn on the device of the images.
    stacksize : int
        Number of times that a single channel is repeated in the images, at least 1:
        one channel is augmented and repeated, so that all channels stay equal.

    Examples
    --------
    >>> import torch
    >>> augment = SkyAugmentation(generator=torch.Generator().manual_seed(1))
    >>> augment(torch.rand(4, 1, 32, 32)).shape
    torch.Size([4, 1, 32, 32])

    Weaker views, so that the embedding depends on angular size and flux:

    >>> from astromorph.settings.sections import AugmentationSettings
    >>> strengths = AugmentationSettings(scale=(0.9, 1.1), contrast=0.1, gamma=0.1)
    >>> augment = SkyAugmentation(strengths)
    """

    def __init__(
        self,
        settings: "AugmentationSettings | None" = None,
        generator: torch.Generator | None = None,
        stacksize: int = 1,
    ) -> None:
        if settings is None:
            from astromorph.settings.sections import AugmentationSettings

            settings = AugmentationSettings()
        self.settings = settings
        self.generator = generator
        self.stacksize = stacksize
        self._is_range_checked = False

    def __call__(self, images: Tensor) -> Tensor:
        """One view of each image.

        Parameters
        ----------
        images : Tensor, shape (N, C, H, W), float32
            From 0 to 1; they are not changed.

        Returns
        -------
        Tensor, shape (N, C, H, W), float32
            From 0 to 1.

        Raises
        ------
        ValueError
            There are no images, they have another shape or type, or pixels are below
            0 or above 1.
        """
        self._check(images)
        if self.stacksize > 1:
            view = self._view(images[:, :1])
            # One copy, in the layout in which convolutions are fastest.
            return view.expand(-1, self.stacksize, -1, -1).contiguous(
                memory_format=torch.channels_last
            )
        return self._view(images)

    def _check(self, images: Tensor) -> None:
        if images.ndim != 4 or images.numel() == 0:
            raise ValueError(
                f"images: found the shape {tuple(images.shape)}; allowed is "
                "(N, C, H, W) of at least one image, (1, C, H, W) for a single one"
            )
        if not images.is_floating_point():
            raise ValueError(
                f"images: found {images.dtype}; allowed are floats from 0 to 1"
            )
        if self._is_range_checked and images.device.type != "cpu":
            return  # reading a value from a GPU would wait for all of its work
        self._is_range_checked = True
        low, high = (float(bound) for bound in images.aminmax())
        if low < -TOLERANCE or high > 1 + TOLERANCE:
            raise ValueError(
                f"images: found pixels from {low:g} to {high:g}; allowed is 0 to 1; "
                "scale them with MinMaxNorm()(images)"
            )

    def _view(self, images: Tensor) -> Tensor:
        number, (height, width) = len(images), images.shape[2:]
        matrices = self._matrices(number, height / width).to(images)
        views = functional.grid_sample(
            images,
            _sampling_grid(matrices, height, width),
            mode="bilinear",
            padding_mode="reflection",
            align_corners=False,
        ).clamp_(0, 1)
        views = views.pow_(self._exponents(number).to(images))
        views = gaussian_blur(views, self._blur_widths(number))
        level, deviation = _median_and_deviation(views)
        factor, offset = self._brightness(views)
        views = torch.addcmul(level * (1 - factor) + offset, views, factor)
        if self.settings.noise:
            added = self._added_noise(factor * deviation)
            views.addcmul_(added, self._normal(views))
        return views.clamp_(0, 1)

    def _matrices(self, number: int, aspect: float) -> Tensor:
        """Affine maps `(N, 2, 3)` from the coordinates of a view to those of the image.

        Coordinates run from -1 to 1 along both axes, so the rotation of an image that
        is not square depends on the aspect, height over width.
        """
        s = self.settings
        low, high = (math.log(scale) for scale in s.scale)
        angle = 2 * math.pi * self._uniform(number) * s.rotation
        scale = torch.exp(-(low + (high - low) * self._uniform(number)))
        mirror = 1 - 2 * (self._uniform(number) < 0.5 * s.flip).float()
        shift = s.shift * (2 * self._uniform(number, 2) - 1) * 2
        cos, sin = scale * angle.cos(), scale * angle.sin()
        rows = (
            torch.stack([mirror * cos, -mirror * sin * aspect, shift[:, 0]], dim=1),
            torch.stack([sin / aspect, cos, shift[:, 1]], dim=1),
        )
        return torch.stack(rows, dim=1)

    def _exponents(self, number: int) -> Tensor:
        """Log-uniform exponents `(N, 1, 1, 1)` around 1."""
        strength = self.settings.gamma
        return torch.exp(strength * (2 * self._uniform(number, 1, 1, 1) - 1))

    def _brightness(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Factor of contrast and channel gain, and offset, of each view.

        Both `(N, C or 1, 1, 1)`; pixels are multiplied around the median of the view.
        """
        s, number = self.settings, len(views)
        contrast = 2 * self._uniform(number, 1, 1, 1).to(views) - 1
        factor = torch.exp(s.contrast * contrast)
        if views.shape[1] > 1:
            gain = 2 * self._uniform(number, views.shape[1], 1, 1).to(views) - 1
            factor = factor * torch.exp(s.channel_gain * gain)
        offset = s.brightness * (2 * self._uniform(number, 1, 1, 1).to(views) - 1)
        return factor, offset

    def _added_noise(self, deviation: Tensor) -> Tensor:
        """Standard deviations `(N, C, 1, 1)` that bring views to a random noise level.

        Variances add up: the result is the square root of their difference, and 0
        where a view has more noise already. The noise of a view is 1.48 times its
        median absolute deviation.
        """
        uniform = self._uniform(len(deviation), 1, 1, 1).to(deviation)
        own = 1.4826 * deviation
        difference = (self.settings.noise * uniform).square() - own.square()
        return difference.clamp_(min=0).sqrt_()

    def _blur_widths(self, number: int) -> Tensor:
        """Standard deviations `(N,)` of Gaussian beams, in pixels."""
        return self.settings.blur * self._uniform(number)

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator)

    def _normal(self, like: Tensor) -> Tensor:
        """Normal random numbers for each pixel, drawn on the device of the images."""
        generator = self.generator
        if like.device.type != "cpu":
            seed = torch.randint(2**62, (), generator=self.generator)
            generator = torch.Generator(like.device).manual_seed(int(seed))
        return torch.randn(like.shape, generator=generator, device=like.device)


def _sampling_grid(matrices: Tensor, height: int, width: int) -> Tensor:
    """Coordinates `(N, H, W, 2)` in the image of each pixel of a view.

    The same as `torch.nn.functional.affine_grid`, in a third of the time: it uses
    additions instead of many small matrix products.
    """
    x = (2 * torch.arange(width, device=matrices.device) + 1) / width - 1
    y = (2 * torch.arange(height, device=matrices.device) + 1) / height - 1
    grid = matrices.new_empty(len(matrices), height, width, 2)
    for k in range(2):
        from_x, from_y, offset = matrices[:, k, :, None, None].unbind(dim=1)
        torch.add(from_x * x, from_y * y[:, None] + offset, out=grid[..., k])
    return grid


def _median_and_deviation(views: Tensor) -> tuple[Tensor, Tensor]:
    """Median and median absolute deviation `(N, C, 1, 1)`, from every fourth pixel."""
    sample = views[:, :, ::2, ::2] if min(views.shape[2:]) >= MIN_SIDE else views
    sample = sample.flatten(2)
    median = _median(sample)
    deviation = _median((sample - median).abs_())
    return median[..., None], deviation[..., None]


def _median(values: Tensor) -> Tensor:
    """The lower median along the last axis, which is kept with length 1."""
    if values.device.type != "cpu" or values.dtype != torch.float32:
        return values.median(dim=-1, keepdim=True).values
    # The same value as torch's, which takes ten times as long on the CPU.
    middle = (values.shape[-1] - 1) // 2
    ordered = np.partition(values.detach().numpy(), middle, axis=-1)
    return torch.from_numpy(ordered[..., middle : middle + 1])


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Convolve each image with its own Gaussian beam.

    Images are mirrored beyond their edges, so that their sums hardly change.

    Parameters
    ----------
    images : Tensor, shape (N, C, H, W), float32
        The images; they are not changed.
    sigma : Tensor, shape (N,)
        Standard deviations in pixels, at least 0; 0 leaves an image unchanged. Three
        times the largest must be less than H and W.

    Returns
    -------
    Tensor, shape (N, C, H, W), float32

    Examples
    --------
    >>> point = torch.zeros(1, 1, 9, 9)
    >>> point[0, 0, 4, 4] = 1.0
    >>> blurred = gaussian_blur(point, torch.tensor([1.0]))
    >>> round(float(blurred.max()), 3), round(float(blurred.sum()), 3)
    (0.159, 1.0)
    """
    if float(sigma.max()) <= 0:
        return images
    reach = max(1, math.ceil(3 * float(sigma.max())))
    offsets = torch.arange(-reach, reach + 1.0)
    widths = sigma.clamp(min=1e-3)[:, None]
    profiles = torch.exp(-0.5 * (offsets / widths) ** 2)
    profiles = (profiles / profiles.sum(dim=1, keepdim=True)).to(images)
    number, channels, height, width = images.shape
    kernels = profiles.repeat_interleave(channels, dim=0)
    flat = images.reshape(1, number * channels, height, width)
    flat = functional.pad(flat, (reach, reach, reach, reach), mode="reflect")
    groups = number * channels
    flat = functional.conv2d(flat, kernels[:, None, :, None], groups=groups)
    flat = functional.conv2d(flat, kernels[:, None, None, :], groups=groups)
    return flat.view_as(images)
