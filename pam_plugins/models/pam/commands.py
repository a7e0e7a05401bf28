"""`pam download`, `pam convert` and `pam parity`: get a checkpoint, make one, and check that it runs right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from pam_core.devices import resolve_device
from pam_core.errors import needs_extra
from pam_core.pam.parity import kernels
from pam_plugins.cli.console import FAILED, INTERRUPTED, fail, note, out

if TYPE_CHECKING:
    from pam_core.pam.parity.comparison import CaseReport


def download(
    name: str = typer.Argument(..., help="PAM-1.5B, PAM-3B, or OWNER/NAME of a repository on the hub."),
    revision: str = typer.Option(None, help="A branch, tag or commit; the newest if left out."),
) -> None:
    """Fetch a released checkpoint. Run again, it goes on where it broke off."""
    with needs_extra("pam", "`pam download`"):
        from pam_core.pam import hub
    try:
        folder = hub.download(name, revision)
    except KeyboardInterrupt:
        fail("stopped; the same command goes on from there.", INTERRUPTED)
    note(f"{name} is in {folder}. `pam models` lists it.")


def convert(
    reference: Path = typer.Argument(..., help="The folder of a PAM checkpoint: config.json, weights, tokenizer."),
    out_folder: Path = typer.Option(..., "--out", help="The folder to write."),
    sam2: Path = typer.Option(None, help="SAM 2's weights, where the checkpoint holds none (sam2.1_hiera_large.pt)."),
    trust_pickle: bool = typer.Option(
        False, "--trust-pickle", help="Read pickles too (*.bin, *.pt). Only tensors are taken from them."
    ),
) -> None:
    """Turn the files of PAM and SAM 2 into one checkpoint of safetensors."""
    with needs_extra("pam", "`pam convert`"):
        from pam_core.pam import checkpoint

    checkpoint.convert(reference, sam2, out_folder, trust_pickle=trust_pickle, progress=note)
    note(f"{out_folder} is complete; use it with PAM_CHECKPOINT={out_folder}.")


def parity(
    folder: Path = typer.Argument(..., help="A checkpoint with cases.json and the tensors recorded for each case."),
    cases: str = typer.Option(None, help="Names of cases, e.g. image_box,image_point; all if left out."),
    device: str = typer.Option("cpu", help="cpu, cuda, mps or auto."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object instead of tables."),
) -> None:
    """Compare this installation with what the reference computed, tensor by tensor."""
    kernels.choose_recorded()
    with needs_extra("pam", "`pam parity`"):
        from pam_core.pam.parity.cases import run_cases

    names = [name.strip() for name in cases.split(",") if name.strip()] if cases else None
    reports: list[CaseReport] = []
    resolved = str(resolve_device(device))
    for report in run_cases(folder, names, resolved):
        reports.append(report)
        if not as_json:
            _show(report)
    right = sum(report.ok for report in reports)
    recorded = kernels.are_recorded(resolved)
    if as_json:
        of_cases = [report.to_json() for report in reports]
        typer.echo(json.dumps({"ok": right == len(reports), "recorded_kernels": recorded, "cases": of_cases}))
    else:
        kind = "the kernels of the recording" if recorded else "other kernels than recorded with"
        note(f"{right} of {len(reports)} cases are as the reference computed them ({kind}).")
    if right < len(reports):
        raise typer.Exit(FAILED)


def _show(report: CaseReport) -> None:
    words = {None: "not compared", True: "equal", False: "DIFFERENT"}
    out.print(f"[bold]{report.name}[/]: {'ok' if report.ok else 'FAILED'}; generated ids {words[report.ids_equal]}")
    if report.error:
        out.print(f"  {report.error}", highlight=False)
        return
    table = Table("tensor", "worst difference", "relative", "", box=None, pad_edge=False)
    for difference in report.differences:
        table.add_row(
            difference.name,
            f"{difference.absolute:.1e}",
            f"{difference.relative:.1e}",
            "" if difference.ok else f"more than {difference.tolerance:.1e}",
        )
    out.print(table)
