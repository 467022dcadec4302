"""A bundle on disk: the folder that export writes and the runtime reads.

Reading never runs code from the folder, never touches the network and never follows a path out of it. A
file's hash is checked whenever the file is asked for, so that loading one variant does not read the others.
"""

from dataclasses import dataclass
from pathlib import Path

from encort.runtime.bundle.cpu import cpu_name, has_instruction_set
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
from encort.runtime.common.errors import (
    BundleError,
    BundleFileChangedError,
    BundleFileMissingError,
    BundlePathError,
    DeviceError,
    VariantNotFoundError,
)
from encort.runtime.common.folders import sha256


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        folder: Where it lies, absolute.
        manifest: What it says of itself.
    """

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: str | Path) -> "Bundle":
        """Read and check the manifest; the other files are checked when they are used.

        Raises:
            BundleFileMissingError: There is no such folder, or no manifest in it.
            BundleVersionError: The format is not the one this encort reads.
            BundlePathError: The manifest names a file outside the folder.
            BundleError: The manifest is damaged.
        """
        folder = Path(folder).absolute()
        if not folder.is_dir():
            raise BundleFileMissingError(f"there is no folder {folder}; make a bundle with: encort export CHECKPOINT")
        _check_name(folder, MANIFEST_FILE)
        try:
            text = (folder / MANIFEST_FILE).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise BundleFileMissingError(
                f"{folder} has no {MANIFEST_FILE}, so it is not a bundle; "
                "for a checkpoint, make one with: encort export CHECKPOINT"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(f"{folder / MANIFEST_FILE} cannot be read: {error}") from error
        manifest = Manifest.from_json(text)
        for name in manifest.files:
            _check_name(folder, name)
        _check_used_files(manifest)
        return cls(folder, manifest)

    def path(self, name: str) -> Path:
        """The checked path of one file of the bundle.

        Raises:
            BundleFileMissingError: The file is not there.
            BundleFileChangedError: Its SHA-256 is not the manifest's.
            BundleError: The manifest does not name it, or it cannot be read.
        """
        if name not in self.manifest.files:
            raise BundleError(f"{MANIFEST_FILE}: no hash for {name!r}; export the bundle again")
        path = self.folder / name
        try:
            found = sha256(path)
        except FileNotFoundError:
            raise BundleFileMissingError(
                f"{self.folder} lacks {name}; copy the whole folder, or export again"
            ) from None
        except OSError as error:
            raise BundleError(f"{path} cannot be read: {error}") from error
        if found != self.manifest.files[name].sha256:
            raise BundleFileChangedError(
                f"{path} is not the file that was exported (SHA-256 differs); copy the bundle or export it again"
            )
        return path

    def graph(self, variant: Variant) -> Path:
        """The checked path of a variant's graph; its weights, where they are a file of their own, are checked too.

        Raises:
            BundleError: See `path`.
        """
        if variant.weights_file is not None:
            self.path(variant.weights_file)
        return self.path(variant.file)

    def variant(self, device: Device, precision: Precision | None) -> Variant:
        """The variant to run: the manifest's first that fits, since the exporter lists its best choice first.

        Args:
            precision: None takes the first of the device that this machine can run.

        Raises:
            VariantNotFoundError: The bundle has none such; the message lists what it has.
            DeviceError: It was made for an instruction set that this machine lacks.
        """
        fit = [
            variant
            for variant in self.manifest.variants
            if variant.device is device and precision in (None, variant.precision)
        ]
        if not fit:
            have = ", ".join(variant.name for variant in self.manifest.variants)
            raise VariantNotFoundError(
                f"{self.folder} has no variant for device {device}, precision {precision or 'auto'}; it has: {have}"
            )
        usable = [variant for variant in fit if runs_here(variant)]
        if not usable:
            raise DeviceError(
                f"variant {fit[0].name} needs the instruction set {fit[0].instruction_set}, which this processor "
                f"({cpu_name()}) lacks: its products would overflow; export it with --weight-bits 7, or load fp32"
            )
        return usable[0]

    def portable(self) -> Variant:
        """The variant in standard operators, for other providers than the variants were made for.

        Raises:
            VariantNotFoundError: The bundle has none.
        """
        for variant in self.manifest.variants:
            if variant.name == PORTABLE:
                return variant
        raise VariantNotFoundError(f"{self.folder} has no {PORTABLE} variant; export it with --variant {PORTABLE}")


def runs_here(variant: Variant) -> bool:
    """Whether this processor has the instruction set that the variant was made for."""
    return variant.instruction_set is None or has_instruction_set(variant.instruction_set)


def file_entries(folder: Path) -> dict[str, FileEntry]:
    """What the manifest says of every file now in `folder`, by name."""
    return {
        path.name: FileEntry(sha256=sha256(path), bytes=path.stat().st_size)
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST_FILE
    }


def _check_name(folder: Path, name: str) -> None:
    """The name is a plain one, and no link leads out of the folder."""
    try:
        inside = Path(name).name == name and "\\" not in name and (folder / name).resolve().parent == folder.resolve()
    except (OSError, RuntimeError, ValueError):  # too long, a loop of links, or characters that no name has
        inside = False
    if not inside:
        raise BundlePathError(f"the bundle names {name!r}, which is not a file of {folder}; do not trust it")


def _check_used_files(manifest: Manifest) -> None:
    used = [TOKENIZER_FILE, CONFIG_FILE]
    for variant in manifest.variants:
        used += [variant.file, *([] if variant.weights_file is None else [variant.weights_file])]
    for name in used:
        if name not in manifest.files:
            raise BundleError(f"{MANIFEST_FILE}: no hash for {name!r}; export the bundle again")
