"""A bundle on disk: the folder that export writes and the runtime reads.

Reading never runs code from the folder, never uses the network, and never follows a path out of the folder. The hash of
a file is checked when the file is used, so that loading one variant does not read the others.
"""

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from encort.runtime.bundle.cpu import cpu_name, has_instruction_set
from encort.runtime.bundle.files import GraphFiles, check_file, read_file
from encort.runtime.bundle.kernels import KERNELS
from encort.runtime.bundle.manifest import (
    CONFIG_FILE,
    MANIFEST_FILE,
    PORTABLE,
    TOKENIZER_FILE,
    Device,
    FileEntry,
    Manifest,
    Precision,
    Variant,
)
from encort.runtime.bundle.manifest_file import read_manifest
from encort.runtime.common.checks import check_whole
from encort.runtime.common.errors import (
    BundleError,
    BundleFileMissingError,
    BundlePathError,
    DeviceError,
    InputError,
    VariantNotFoundError,
)
from encort.runtime.common.files import LARGEST_JSON, read_bytes
from encort.runtime.common.folders import NOT_UTF8, sha256
from encort.runtime.common.output.escaping import is_unicode


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        folder: Absolute path of its folder.
        manifest: Content of its `encort.json`.
        hub_name: Its name on the hub, `hf://org/name@commit`, or its URL in an object store; None: it was opened as a
            folder.
    """

    folder: Path
    manifest: Manifest
    hub_name: str | None = None

    @property
    def source(self) -> str:
        """Name by which `encort.load` opens the same bundle again, on any machine if it is of the hub or of a store."""
        return str(self.folder) if self.hub_name is None else self.hub_name

    @classmethod
    def open(cls, folder: str | Path) -> "Bundle":
        """Open a bundle and check its manifest. The other files are checked when they are used.

        Args:
            folder: Folder of the bundle.

        Raises:
            BundleFileMissingError: There is no such folder, or it has no manifest.
            BundleVersionError: The bundle has a format version that this encort does not read.
            BundlePathError: The manifest names a file outside the folder.
            BundleError: The manifest is damaged.
        """
        folder = Path(folder).absolute()
        if not folder.is_dir():
            raise BundleFileMissingError(f"there is no folder {folder}; make a bundle with: encort export CHECKPOINT")
        if not is_unicode(str(folder)):
            raise BundleError(f"{folder}: {NOT_UTF8}")
        _check_name(folder, MANIFEST_FILE)
        try:
            text = read_bytes(folder / MANIFEST_FILE, largest=LARGEST_JSON).decode("utf-8")
        except FileNotFoundError:
            raise BundleFileMissingError(
                f"{folder} has no {MANIFEST_FILE}, so it is not a bundle; "
                "for a checkpoint, make one with: encort export CHECKPOINT"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(f"{folder / MANIFEST_FILE} cannot be read: {error}") from error
        manifest = read_manifest(text)
        for name in manifest.files:
            _check_name(folder, name)
        _check_used_files(manifest)
        return cls(folder, manifest)

    def limited(self, max_length: int | None) -> "Bundle":
        """Return the bundle with a smaller limit of tokens; None: with its own limit.

        Raises:
            InputTypeError: The limit is not a whole number.
            InputError: The limit is below 1, or above that of the bundle.
        """
        if max_length is None:
            return self
        largest, wanted = self.manifest.max_length, check_whole("max_length", max_length, least=1)
        if wanted > largest:
            raise InputError(
                f"max_length must be at most {largest}, the limit of {self.folder}, got {wanted}; "
                "for longer inputs, export the checkpoint again with --max-length"
            )
        return replace(self, manifest=replace(self.manifest, max_length=wanted))

    def read(self, name: str) -> bytes:
        """Return the content of one small file of the bundle, after checking its hash.

        Args:
            name: Name of the file.

        Raises:
            BundleFileMissingError: The file does not exist.
            BundleFileChangedError: The size or the SHA-256 of the file differs from the manifest.
            BundleError: The manifest does not name the file; the file cannot be read, or is larger than 256 MiB.
        """
        return read_file(self.folder / name, self._entry(name))

    def check(self, name: str) -> None:
        """Check the size and the hash of one file of any size.

        Raises:
            BundleError: See `read`.
        """
        check_file(self.folder / name, self._entry(name))

    def graph(self, variant: Variant) -> GraphFiles:
        """Return the files of a variant's graph, after checking their hashes.

        Raises:
            BundleError: See `read`.
        """
        names = [variant.file, *([] if variant.weights_file is None else [variant.weights_file])]
        files = GraphFiles(self.folder / variant.file, {self.folder / name: self._entry(name) for name in names})
        files.check()
        return files

    def variant(self, device: Device, precision: Precision | None, *, native: bool = True) -> Variant:
        """Return the variant to run: the first of the manifest that fits, because the exporter lists its choice first.

        Args:
            device: Device to run on.
            precision: Precision of the variant; None: any that this machine can run.
            native: Whether it may be a variant with the operators of encort-kernels.

        Raises:
            VariantNotFoundError: The bundle has no such variant; the message lists its variants.
            DeviceError: The variant needs an instruction set that this machine lacks.
        """
        fitting = [
            variant
            for variant in self.manifest.variants
            if variant.device is device and precision in (None, variant.precision) and (native or not variant.is_native)
        ]
        if not fitting:
            have = ", ".join(variant.name for variant in self.manifest.variants)
            raise VariantNotFoundError(
                f"{self.folder} has no variant for device {device}, precision {precision or 'auto'}; it has: {have}"
            )
        usable = [variant for variant in fitting if runs_here(variant)]
        if not usable:
            raise DeviceError(_why_not_here(fitting[0]))
        return usable[0]

    def portable(self) -> Variant:
        """Return the variant in standard operators, for execution providers without a variant of their own.

        Raises:
            VariantNotFoundError: The bundle has no portable variant.
        """
        for variant in self.manifest.variants:
            if variant.name == PORTABLE:
                return variant
        raise VariantNotFoundError(f"{self.folder} has no {PORTABLE} variant; export it with --variant {PORTABLE}")

    def _entry(self, name: str) -> FileEntry:
        if name not in self.manifest.files:
            raise BundleError(f"{MANIFEST_FILE}: no hash for {name!r}; export the bundle again")
        return self.manifest.files[name]


def runs_here(variant: Variant) -> bool:
    """Return whether this processor has the instruction set that the variant needs."""
    return variant.instruction_set is None or has_instruction_set(variant.instruction_set)


def file_entries(folder: Path) -> dict[str, FileEntry]:
    """Return the manifest's entry for every file of a folder and of the folders in it, by its path in the folder."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name: FileEntry(sha256=sha256(path), bytes=path.stat().st_size)
        for name, path in files.items()
        if name != MANIFEST_FILE
    }


def _check_name(folder: Path, name: str) -> None:
    """Refuse a name that is not a path downwards from the folder, and a link that leads out of the folder."""
    try:
        is_path = PurePosixPath(name).as_posix() == name and ".." not in name.split("/") and "\\" not in name
        inside = is_path and folder.resolve() in (folder / name).resolve().parents
    except (OSError, RuntimeError, ValueError):  # too long, a loop of links, or an invalid character
        inside = False
    if not inside:
        raise BundlePathError(f"the bundle names {name!r}, which is not a file of {folder}; do not trust it")


def _check_used_files(manifest: Manifest) -> None:
    """Refuse a manifest without the hash of a file that the runtime reads."""
    used = [TOKENIZER_FILE, CONFIG_FILE]
    for variant in manifest.variants:
        used += [variant.file, *([] if variant.weights_file is None else [variant.weights_file])]
    for name in used:
        if name not in manifest.files:
            raise BundleError(f"{MANIFEST_FILE}: no hash for {name!r}; export the bundle again")


def _why_not_here(variant: Variant) -> str:
    if variant.is_native:
        return (
            f"variant {variant.name} needs {KERNELS}, which is not installed or does not know this processor "
            f"({cpu_name()}): install it with pip, or load another precision"
        )
    return (
        f"variant {variant.name} needs the instruction set {variant.instruction_set}, which this processor "
        f"({cpu_name()}) lacks: its products would overflow; export it with --weight-bits 7, or load fp32"
    )
