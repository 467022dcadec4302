import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from encort.runtime.bundle.bundle import Bundle
from encort.runtime.cli.main import group
from encort.runtime.common.errors import CheckpointError, FidelityError, MissingExtraError, OutputExistsError


def encort(*arguments: object) -> Result:
    """Run the command in this process, and raise its error."""
    result = CliRunner().invoke(group, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run_encort(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "encort", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def test_export_makes_a_bundle_and_prints_the_fidelity_of_every_variant(
    classifier_checkpoint: Path, output: Path
) -> None:
    lines = encort("export", classifier_checkpoint, "--output", output).stdout.splitlines()
    variants = Bundle.open(output).manifest.variants
    for line, variant in zip(lines, variants, strict=False):
        fidelity = variant.fidelity
        cosines = f"cosine mean {fidelity.mean_cosine:.5f}, min {fidelity.min_cosine:.5f}"
        compared = f"largest difference to eager PyTorch, {fidelity.cases} batches"
        assert line.startswith(f"{variant.name}: {cosines}; {compared}: ")
        assert f"logits {fidelity.max_abs_error['logits']:.1e}" in line
    assert lines[len(variants) :] == [f"bundle: {output}"]


def test_export_options_reach_the_bundle(encoder_checkpoint: Path, output: Path) -> None:
    options = ["--pooling", "cls", "--no-normalize", "--max-length", "16", "--variant", "fp32"]
    encort("export", encoder_checkpoint, "-o", output, *options)
    manifest = Bundle.open(output).manifest
    assert (manifest.embedding.pooling, manifest.embedding.normalize, manifest.max_length) == (["cls"], False, 16)
    assert [variant.name for variant in manifest.variants] == ["cpu-fp32", "cpu-fp32-ragged"]


def test_export_replaces_a_bundle_only_with_overwrite(
    encoder_checkpoint: Path, encoder_bundle: Path, tmp_path: Path
) -> None:
    earlier = shutil.copytree(encoder_bundle, tmp_path / "earlier.bundle")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        encort("export", encoder_checkpoint, "-o", earlier)
    encort("export", encoder_checkpoint, "-o", earlier, "--pooling", "cls", "--variant", "fp32", "--overwrite")
    assert Bundle.open(earlier).manifest.embedding.pooling == ["cls"]


def test_export_without_its_packages_gives_the_pip_command(
    encoder_checkpoint: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("encort.runtime.common.extras.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r'encort export needs.*pip install "encort\[export\]"'):
        encort("export", encoder_checkpoint, "-o", output)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export"], "Missing argument 'CHECKPOINT...'"),
        (["export", "checkpoint"], "Missing option '--output'"),
        (["export", "checkpoint", "-o", "out", "--pooling", "median"], "'median' is not one of 'mean', 'cls',"),
        (["verify"], "Missing argument 'BUNDLE'"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], message: str) -> None:
    result = encort(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_verify_compares_with_the_golden_vectors(classifier_bundle: Path) -> None:
    lines = encort("verify", classifier_bundle).stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["cpu-fp32", "cpu-fp32-ragged", "verified"]
    assert all("golden vectors, 50 texts" in line and "logits" in line for line in lines[:2])
    assert lines[2] == f"verified: {classifier_bundle}, 2 of 2 variants"


def test_verify_compares_with_a_checkpoint(classifier_bundle: Path, classifier_checkpoint: Path) -> None:
    lines = encort("verify", classifier_bundle, "--checkpoint", classifier_checkpoint).stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [*["cpu-fp32", "cpu-fp32-ragged"] * 2, "verified"]
    assert all("eager PyTorch" in line for line in lines[2:4])


def test_verify_refuses_another_checkpoint(
    classifier_bundle: Path, encoder_checkpoint: Path, encoder_bundle: Path, make_checkpoint: Callable[..., Path]
) -> None:
    with pytest.raises(CheckpointError, match="other heads or labels"):
        encort("verify", classifier_bundle, "--checkpoint", encoder_checkpoint)
    with pytest.raises(FidelityError):
        encort("verify", encoder_bundle, "--checkpoint", make_checkpoint(seed=11))


@pytest.mark.parametrize("variants", ["none", "of another machine"])
def test_verify_of_a_bundle_that_this_machine_cannot_run_exits_with_its_code(
    encoder_bundle: Path, output: Path, variants: str
) -> None:
    shutil.copytree(encoder_bundle, output)
    plain = json.loads((output / "encort.json").read_text())
    plain["variants"] = plain["variants"][:1] if variants == "of another machine" else []
    for variant in plain["variants"]:
        variant["instruction_set"] = "an instruction set of another machine"
    (output / "encort.json").write_text(json.dumps(plain))
    verified = run_encort("verify", output)
    assert verified.returncode == 17
    assert "this machine can run no variant" in verified.stderr
    assert len(verified.stdout.splitlines()) == len(plain["variants"])


def test_errors_are_one_line_on_stderr_and_an_exit_code(output: Path) -> None:
    refused = run_encort("export", "/no/such/checkpoint", "-o", output)
    assert (refused.returncode, refused.stdout) == (CheckpointError.exit_code, "")
    assert refused.stderr == "encort: there is no checkpoint folder /no/such/checkpoint\n"


def test_verify_runs_from_a_shell(encoder_bundle: Path) -> None:
    verified = run_encort("verify", encoder_bundle)
    assert (verified.returncode, len(verified.stdout.splitlines()), verified.stderr) == (0, 3, "")


def test_verify_of_a_changed_bundle_exits_with_its_code(encoder_bundle: Path, output: Path) -> None:
    shutil.copytree(encoder_bundle, output)
    config = json.loads((output / "config.json").read_text())
    (output / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    changed = run_encort("verify", output)
    assert (changed.returncode, changed.stdout) == (12, "")
    assert "config.json is not the file that was exported" in changed.stderr
