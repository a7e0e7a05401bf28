"""`pam video`: objects tracked through a video, a folder of frames or a camera, with captions of their events."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from pam_core.contracts import ModelInfo
from pam_core.errors import DatasetError, PromptError, VideoError, VideoReadError
from pam_core.types import Prompt
from pam_plugins.cli import video_run
from pam_plugins.cli.arguments import languages, load, numbers, read_mask, tell
from pam_plugins.options import check_prompt
from pam_plugins.plugins import resolve_video_model
from pam_plugins.video_io.prompts import VideoPrompt, read_video_prompts

if TYPE_CHECKING:
    from pam_core.media.frame_sources import Camera, RecordedSource


def command(
    source: str = typer.Argument(help="A video file, a folder of pictures, or camera:0.", show_default=False),
    point: list[str] = typer.Option(
        [], metavar="X,Y[@FRAME]", help="A click on an object, on the first frame or on this one; repeat for more."
    ),
    box: list[str] = typer.Option([], metavar="X1,Y1,X2,Y2[@FRAME]", help="A box around an object; repeat for more."),
    mask: list[str] = typer.Option([], metavar="PNG[@FRAME]", help="A mask picture of an object; repeat for more."),
    prompts: Path = typer.Option(None, help="A JSON Lines file of prompts: track, frame, points, box, mask."),
    lang: str = typer.Option("en", help="Languages of the captions, e.g. en,zh."),
    model: str = typer.Option("auto", help="A name from `pam models`; auto takes the best that tracks objects."),
    device: str = typer.Option("auto", help="cpu, cuda, mps or auto."),
    direction: str = typer.Option("forward", help="forward, backward or both, from the frames of the prompts."),
    clip: int = typer.Option(None, help="Events of so many frames each; cut where the object changes if left out."),
    every: int = typer.Option(1, help="Use each N-th frame only."),
    start: float = typer.Option(0.0, help="Begin after so many seconds."),
    end: float = typer.Option(None, help="Stop after so many seconds of the video."),
    out_file: Path = typer.Option(None, "--out", help="Write results to this JSON Lines file as they are made."),
    mp4: Path = typer.Option(None, help="Write a video with masks, boxes and captions on it."),
    mot: Path = typer.Option(None, help="Write boxes as MOT Challenge text."),
    tracks: Path = typer.Option(None, help="Write masks, boxes and captions of each object as JSON."),
    no_captions: bool = typer.Option(False, "--no-captions", help="Track objects only."),
) -> None:
    """Track objects through a video or a camera, and caption what each of them does."""
    from pam_core.sessions.events import EventRule
    from pam_core.sessions.session import StreamSession

    codes = languages(lang)
    outputs = video_run.Outputs(out_file, mp4, mot, tracks)
    rule = EventRule() if clip is None else EventRule(min_frames=clip, max_frames=clip)
    given = _prompts(point, box, mask, prompts)
    info = resolve_video_model(model, () if no_captions else codes)
    frames = _source(source, start, end, every)
    _check(given, info, frames, every)
    _check_outputs(outputs, source)
    if model == "auto":
        tell(info)
    session = StreamSession(load(info, device), languages=codes, rule=rule, captions=not no_captions)
    with closing(session):
        for track_id, prompt, frame in given:
            session.prompt(track_id, prompt, frame)
        video_run.run(session, frames, cast(Any, direction), outputs)  # the session checks the direction


def _prompts(points: list[str], boxes: list[str], masks: list[str], path: Path | None) -> list[VideoPrompt]:
    """Each point, box and mask is an object of its own, numbered from 1; those of a file are what it says."""
    if path is not None:
        if points or boxes or masks:
            raise PromptError("Got --prompts together with other prompts; wanted one or the other.")
        return read_video_prompts(path)
    given: list[tuple[Prompt, int | None]] = []
    for text in points:
        spot, frame = _at_frame(text)
        x, y = numbers(spot, (2,), "--point", "X,Y (several clicks on one object go into a file, --prompts)")
        given.append((Prompt.at(x, y), frame))
    for text in boxes:
        spot, frame = _at_frame(text)
        x1, y1, x2, y2 = numbers(spot, (4,), "--box", "X1,Y1,X2,Y2")
        given.append((Prompt(box=(x1, y1, x2, y2)), frame))
    for text in masks:
        spot, frame = _at_frame(text)
        given.append((Prompt(mask=read_mask(Path(spot))), frame))
    if not given:
        raise PromptError("Got no object to track; wanted at least one --point, --box or --mask, or --prompts FILE.")
    return [VideoPrompt(number, prompt, frame) for number, (prompt, frame) in enumerate(given, 1)]


def _at_frame(text: str) -> tuple[str, int | None]:
    spot, _, frame = text.rpartition("@")
    return (spot, int(frame)) if spot and frame.isdecimal() else (text, None)


def _source(text: str, start: float, end: float | None, every: int) -> RecordedSource | Camera:
    from pam_core.media.frame_sources import Camera, FrameRange, open_source

    try:
        source = open_source(text)
    except VideoError as error:
        raise VideoReadError(str(error)) from error
    if not start and end is None and every == 1:
        return source
    if isinstance(source, Camera):
        raise PromptError("Got --start, --end or --every for a camera; these are for files and folders.")
    return FrameRange(source, start, end, every)


def _check(prompts: list[VideoPrompt], info: ModelInfo, source: RecordedSource | Camera, every: int) -> None:
    """Raise PromptError, before the model is loaded, for prompts that cannot be used."""
    for _, prompt, frame in prompts:
        check_prompt(info, prompt)
        if source.size is not None:
            prompt.check(*source.size)
        if frame is not None and frame % every:
            raise PromptError(
                f"Got a prompt on frame {frame}, which --every {every} leaves out; wanted a multiple of {every}."
            )


def _check_outputs(outputs: video_run.Outputs, source: str) -> None:
    taken = {Path(source).resolve(): "the source"}
    for option, path in outputs.all().items():
        if (other := taken.setdefault(path.resolve(), option)) != option:
            raise PromptError(f"Got {path} for {option} and for {other}; wanted different files.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            reason = "it is a folder" if path.is_dir() else ""
        except OSError as error:
            reason = error.strerror or str(error)
        if reason or not os.access(path.parent, os.W_OK):
            raise DatasetError(f"{path} cannot be written ({reason or 'no permission'}); choose another {option}.")
